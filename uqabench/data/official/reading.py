"""One pass over the four published files, and the store and questions that come of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from uqabench.data.catalogue import Catalogue
from uqabench.data.official.factor import Items, Texts
from uqabench.data.official.given import GivenQuestions, Histories, letter_of, parse_text, subtask_of
from uqabench.data.official.layout import (
    ITEM_FIELDS,
    ITEM_NAMES,
    QUESTION_FIELDS,
    SIDES,
    USER_FIELDS,
    data_file,
    sidecar,
)
from uqabench.data.official.ragged import offsets_of
from uqabench.data.official.read import Block, read_blocks
from uqabench.data.official.sidecars import Sidecar
from uqabench.data.rejections import REASONS, Rejections
from uqabench.data.split import name_digests, sequence_digests, split_hash
from uqabench.data.store import ASKED_ONLY, InteractionStore
from uqabench.errors import InputError
from uqabench.vocabulary import SUBTASKS

_UNREADABLE = REASONS.index("unreadable question")


class Sequences:
    """Sequences of official item ids of one file, end to end.

    items int32 (R,), offsets int64 (n + 1,), rows int64 (n,): the number of each in its file, from 0. size: rows of the
    file, bad ones included.
    """

    def __init__(self, blocks: list[tuple[Block, np.ndarray]]) -> None:
        self.items = np.concatenate([np.zeros(0, np.int32), *(items for _, items in blocks)])
        self.rows = np.concatenate([np.zeros(0, np.int64), *(block.rows for block, _ in blocks)])
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(block.offsets) for block, _ in blocks)])
        self.offsets = offsets_of(self.lengths)
        self.size = sum(block.size for block, _ in blocks)

    def of(self, i: int) -> np.ndarray:
        return self.items[self.offsets[i] : self.offsets[i + 1]]


class Reading:
    """Reads the folder when it is made; `store` puts together what was read."""

    def __init__(self, folder: Path, rejections: Rejections, texts: Texts) -> None:
        self.folder, self.rejections, self.texts = folder, rejections, texts
        self.described = Items(rejections.strict)
        self.actions: list[str] = []
        self._users(*(self._pretrain(data_file("pretrain", side)) for side in SIDES.values()))
        self.n_users, self.n_interactions = len(self.offsets) - 1, len(self.items)
        histories = Histories(self.items, self.offsets, self.split)
        self.extra: dict[bytes, tuple[int, str, np.ndarray]] = {}
        self.questions = {
            split: self._align(data_file("align", side), histories, number)
            for number, (split, side) in enumerate(SIDES.items())
        }

    def store(self) -> tuple[InteractionStore, dict[str, GivenQuestions], list[str]]:
        """(store without facts, its questions by split, notes on what was not as it should be)."""
        official, catalogue, differing = self.described.catalogue(self.texts)
        extra = [items for _, _, items in self.extra.values()]
        offsets = offsets_of(np.r_[np.diff(self.offsets), [len(items) for items in extra]].astype(np.int64))
        split = np.r_[self.split, np.full(len(extra), ASKED_ONLY)].astype(np.int8)
        items = np.searchsorted(official, np.concatenate([self.items, *extra])).astype(np.int32)
        in_training = np.repeat(split == 0, np.diff(offsets))
        popularity = np.bincount(items[in_training], minlength=len(official)).astype(np.int64)
        item_ids = self._item_ids(official, catalogue)
        times, actions = (None, None) if extra else (self.times, self.action_codes)
        columns = [name_digests(item_ids.tolist())[items], times]
        columns.append(None if actions is None else name_digests(self.actions)[actions])
        digests = sequence_digests(offsets, [column for column in columns if column is not None])
        store = InteractionStore(
            offsets=offsets,
            items=items,
            timestamps=times,
            actions=actions,
            user_ids=[*self.user_ids, *(name for _, name, _ in self.extra.values())],
            split=split,
            catalogue=replace(catalogue, popularity=popularity, item_ids=item_ids),
            split_hash=split_hash(digests, split),
        )
        return store, self.questions, self._notes(differing)

    def _notes(self, differing: dict[str, int]) -> list[str]:
        notes = [
            f"{count:,} item{'s' if count > 1 else ''} had more than one {name}: what most interactions say is kept."
            for name, count in differing.items()
        ]
        if self.extra:
            notes.append(f"{len(self.extra):,} histories begin no user's sequence: they serve questions only.")
            if self.times is not None or self.action_codes is not None:
                notes.append("Times and actions are left out, since those histories have none.")
                self.actions = []
        return notes

    def _pretrain(self, name: str) -> tuple[Sequences, Sidecar, str]:
        blocks = read_blocks(self.folder / name, self.rejections)
        found = Sequences([(block.without_features(), self.described.add(block, name)) for block in blocks])
        beside = Sidecar(self.folder / sidecar(name), USER_FIELDS)
        beside.check_rows(found.size)
        return found, beside, name

    def _users(self, *files: tuple[Sequences, Sidecar, str]) -> None:
        """Users in the order that the sidecars give, else in that of the files."""
        ids: list[str] = []
        places, times, actions = [], [], []
        for found, beside, name in files:
            if beside.columns:
                ids += beside.columns["user_id"].take(pa.array(found.rows)).to_pylist()
                places.append(beside.columns["place"].to_numpy()[found.rows])
            else:
                ids += [f"{name.removesuffix('.arrow')}:{row + 1}" for row in found.rows.tolist()]
            times.append(beside.lists("timestamp", pa.int64(), found.rows, found.lengths))
            actions.append(beside.lists("action", pa.int8(), found.rows, found.lengths))
            self.actions = beside.action_names or self.actions
        lengths = np.concatenate([found.lengths for found, _, _ in files])
        order = np.arange(len(lengths))
        if len(places) == len(files):
            order = np.argsort(np.concatenate(places), kind="stable")
        starts, self.offsets = np.cumsum(lengths) - lengths, offsets_of(lengths[order])
        rows = np.arange(int(lengths.sum())) + np.repeat(starts[order] - self.offsets[:-1], lengths[order])

        def ordered(parts: list[np.ndarray | None]) -> np.ndarray | None:
            return np.concatenate(parts)[rows] if all(part is not None for part in parts) else None

        self.user_ids = [ids[user] for user in order.tolist()]
        self.items = np.concatenate([found.items for found, _, _ in files])[rows]
        self.split = np.repeat(np.arange(len(files)), [len(found.rows) for found, _, _ in files])[order].astype(np.int8)
        self.times, self.action_codes = ordered(times), ordered(actions)
        if self.action_codes is None:
            self.actions = []

    def _item_ids(self, official: np.ndarray, catalogue: Catalogue) -> np.ndarray:
        names = Sidecar(self.folder / ITEM_NAMES, ITEM_FIELDS)
        if not names.columns:
            return catalogue.item_ids
        known = dict(zip(names.columns["id"].to_pylist(), names.columns["item_id"].to_pylist(), strict=True))
        found = [known.get(item, str(item)) for item in official.tolist()]
        if len(set(found)) < len(found):
            raise InputError(f"{names.path}: two items have one name: export the store again.")
        return np.array(found, object)

    def _align(self, name: str, histories: Histories, side: int) -> GivenQuestions:
        beside = Sidecar(self.folder / sidecar(name), QUESTION_FIELDS)
        blocks, asked = [], []
        for block in read_blocks(self.folder / name, self.rejections, with_text=True):
            asked_rows = zip(block.texts, block.rows.tolist(), strict=True)
            parsed = [self._parsed(text, beside, row) for text, row in asked_rows]
            good = np.array([found is not None for found in parsed], bool) & (np.diff(block.offsets) > 0)
            if not good.all():
                bad = block.rows[~good] + 1
                self.rejections.add(name, bad, np.full(len(bad), _UNREADABLE))
                block = block.select(good)
            blocks.append((block.without_features(), self.described.add(block, name)))
            asked += [found for found, is_good in zip(parsed, good.tolist(), strict=True) if is_good]
        found = Sequences(blocks)
        beside.check_rows(found.size)
        users, cuts = histories.find(found.items, found.offsets, side)
        self._follow(beside, found, histories, users, cuts)
        for i in np.flatnonzero(users < 0).tolist():
            history = found.of(i)
            label = f"{name.removesuffix('.arrow')}:{found.rows[i] + 1}"
            place, _, _ = self.extra.setdefault(history.tobytes(), (len(self.extra), label, history))
            users[i], cuts[i] = self.n_users + place, len(history)
        texts, answers, subtasks = zip(*asked, strict=True) if asked else ((), (), ())
        return GivenQuestions(
            users.astype(np.int32), cuts.astype(np.int32), np.array(subtasks, np.int8), np.array(answers, np.int8),
            list(texts),
        )  # fmt: skip

    def _parsed(self, text: str, beside: Sidecar, row: int) -> tuple[str, int, int] | None:
        """(question, letter, sub-task) of a row's text; None where one of them is missing."""
        found = parse_text(text)
        if found is None:
            return None
        if beside.columns and row < len(beside.columns["subtask"]):
            key = beside.columns["subtask"][row].as_py()
        else:
            key = subtask_of(found[0])
        letter = letter_of(found[1])
        return (found[0], letter, SUBTASKS.index(key)) if key in SUBTASKS and letter >= 0 else None

    def _follow(
        self, beside: Sidecar, found: Sequences, histories: Histories, users: np.ndarray, cuts: np.ndarray
    ) -> None:
        """Put in the user and cut that the sidecar names, where that user's sequence has the history there."""
        if not beside.columns:
            return
        said = {name: beside.columns[name].to_numpy()[found.rows].astype(np.int64) for name in ("user", "cut")}
        for i, (user, cut) in enumerate(zip(said["user"].tolist(), said["cut"].tolist(), strict=True)):
            history = found.of(i)
            if not (0 <= user < self.n_users and cut >= len(history)):
                continue
            end = histories.offsets[user] + cut
            before = histories.items[end - len(history) : end]
            if end <= histories.offsets[user + 1] and np.array_equal(before, history):
                users[i], cuts[i] = user, cut
