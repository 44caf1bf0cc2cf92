"""Side features, which the files repeat at every interaction, brought down to one row an item."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.official.layout import ID_COLUMNS, ITEM, TOKEN_COLUMNS, TOKENS
from uqabench.data.official.ragged import Lists, fingerprints
from uqabench.data.official.read import Block
from uqabench.errors import InputError

_PARTIAL = 2**22  # rows of counts that are gathered before they are summed up


@dataclass
class _Values:
    """Every distinct (id, tokens) of one attribute, by its fingerprint, in order of appearance."""

    place: dict[int, int] = field(default_factory=dict)
    ids: list[np.ndarray] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)

    def add(self, prints: np.ndarray, ids: np.ndarray, tokens: Lists) -> None:
        distinct, first = np.unique(prints, return_index=True)
        new = [(int(p), int(i)) for p, i in zip(distinct.tolist(), first.tolist(), strict=True) if p not in self.place]
        for fingerprint, _ in new:
            self.place[fingerprint] = len(self.place)
        rows = np.array([row for _, row in new], np.int64)
        self.ids.append(ids[rows])
        taken = tokens.take(rows)
        self.lengths.append(taken.lengths)
        self.tokens.append(taken.flat()[1].astype(np.int32))

    def lists(self) -> tuple[np.ndarray, Lists]:
        """(official ids, -1 for none; token lists) in order of appearance."""
        ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *self.lengths]))
        lengths = np.diff(ends, prepend=0)
        flat = np.concatenate([np.zeros(0, np.int32), *self.tokens])
        return np.concatenate([np.zeros(0, np.int64), *self.ids]), Lists(ends - lengths, ends, flat)


class Items:
    """Collects what blocks say of each item, and keeps of contradictions what most interactions say."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.values = {name: _Values() for name in ATTRIBUTES}
        self._counts: dict[str, list[pa.Table]] = {name: [] for name in ATTRIBUTES}
        self._rows = 0

    def add(self, block: Block, file: str) -> np.ndarray:
        """Take in a block; returns the official item of each interaction, int32 (I,)."""
        items = block.features[ITEM].only()
        for name in ATTRIBUTES:
            tokens = block.features[TOKEN_COLUMNS[name]]
            ids = np.full(len(items), -1) if name not in ID_COLUMNS else block.features[ID_COLUMNS[name]].only()
            prints = fingerprints(ids, tokens)
            self.values[name].add(prints, ids, tokens)
            order = self._rows + np.arange(len(items))
            counts = pa.table({"item": items, "value": prints, "first": order, "count": np.ones(len(items), np.int64)})
            self._counts[name].append(_summed(counts))
            if self.strict:
                self._stop_at_a_contradiction(name, file, block)
            elif sum(map(len, self._counts[name])) > _PARTIAL:
                self._counts[name] = [_summed(pa.concat_tables(self._counts[name]))]
        self._rows += len(items)
        return items.astype(np.int32)

    def _stop_at_a_contradiction(self, name: str, file: str, block: Block) -> None:
        counts = self._counts[name] = [_summed(pa.concat_tables(self._counts[name]))]
        items = counts[0]["item"].to_numpy()
        twice = np.flatnonzero(np.bincount(np.unique(items, return_inverse=True)[1]) > 1)
        if len(twice):
            item = np.unique(items)[twice[0]]
            at = np.sort(counts[0]["first"].to_numpy()[items == item])[1] - self._rows
            row = block.rows[np.searchsorted(block.offsets, at, side="right") - 1] + 1
            raise InputError(
                f"{file}, row {row}: the {name} of item {item} differs from an earlier row's; correct it, or leave out "
                "--strict to keep what most interactions say."
            )

    def catalogue(self, texts: Texts) -> tuple[np.ndarray, Catalogue, dict[str, int]]:
        """(official item ids in ascending order, the catalogue without popularity, items with contradictions by
        attribute)."""
        chosen = {name: _majority(self._counts[name]) for name in ATTRIBUTES}
        official = chosen[ATTRIBUTES[0]][0]
        differing = {name: count for name, (_, _, count) in chosen.items() if count}
        values: dict[str, list[str]] = {}
        codes, tokens, ids = {}, {}, {"item": official}
        for name, (_, prints, _) in chosen.items():
            place = self.values[name].place
            found = np.array([place[int(fingerprint)] for fingerprint in prints], np.int64)
            own, lists = self.values[name].lists()
            present = (own[found] >= 0) | (lists.lengths[found] > 0)
            used = np.unique(found[present])
            names = texts.of(lists.take(used))
            bounds, flat = lists.take(used).flat()
            numbers, spelt = own[used].tolist(), [part.tobytes() for part in np.split(flat, bounds[1:-1])]
            keys = [(numbers[i], names[i].encode(), spelt[i]) for i in range(len(used))]
            order = sorted(range(len(used)), key=keys.__getitem__)
            kept = used[np.array(order, np.int64)]
            rank = np.full(len(own), -1, np.int32)
            rank[kept] = np.arange(len(kept), dtype=np.int32)
            codes[name] = np.where(present, rank[found], -1).astype(np.int32)
            values[name] = [names[i] for i in order]
            offsets, flat = lists.take(kept).flat()
            tokens[name] = offsets, flat.astype(np.int32)
            if name in ID_COLUMNS:
                ids[name] = own[kept]
        item_ids = np.array([str(item) for item in official.tolist()], object)
        popularity = np.zeros(len(official), np.int64)
        vocabulary = texts.vocabulary
        return official, Catalogue(item_ids, values, codes, popularity, tokens, TOKENS, vocabulary, ids), differing


def _summed(counts: pa.Table) -> pa.Table:
    grouped = counts.group_by(["item", "value"], use_threads=False)
    return grouped.aggregate([("first", "min"), ("count", "sum")]).rename_columns(["item", "value", "first", "count"])


def _majority(counts: list[pa.Table]) -> tuple[np.ndarray, np.ndarray, int]:
    """(items in ascending order, the value of most interactions (of the first in a tie), items with several values)."""
    table = _summed(pa.concat_tables(counts))
    item, value, first, count = (table[name].to_numpy() for name in ("item", "value", "first", "count"))
    order = np.lexsort((first, -count, item))
    item, value = item[order], value[order]
    begins = np.flatnonzero(np.r_[True, item[1:] != item[:-1]]) if len(item) else np.zeros(0, np.int64)
    several = int((np.diff(np.r_[begins, len(item)]) > 1).sum())
    return item[begins], value[begins], several


class Texts:
    """Token ids as text. vocabulary: what each of the published token ids stands for, "" where it is no text alone."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = [*tokens, *[b""] * (TOKENS - len(tokens))]
        self.vocabulary = [token.decode("utf-8", "replace") for token in self._tokens]

    def of(self, lists: Lists) -> list[str]:
        """The text of each list; bytes that are no UTF-8 become U+FFFD."""
        offsets, flat = lists.flat()
        bounds, ids = offsets.tolist(), flat.tolist()
        own = self._tokens
        return [
            b"".join([own[i] for i in ids[low:high]]).decode("utf-8", "replace")
            for low, high in zip(bounds[:-1], bounds[1:], strict=True)
        ]
