"""The catalogue: what is known about each item, stored once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from uqabench.data.arrow import map_arrow, view, write_arrow
from uqabench.errors import InputError

ATTRIBUTES = ("title", "category", "brand", "shop", "seller")

_ITEMS = {"item_id": pa.string(), "popularity": pa.int64(), **{name: pa.int32() for name in ATTRIBUTES}}
_SOURCE_ID = "source_id"
_VALUES = {"value": pa.string(), "tokens": pa.large_list(pa.int32())}


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items 0..V-1 and their attributes; there is no padding index.

    item_ids: (V,) object array of str, the external ids, in ascending order of their UTF-8 bytes.
    values: attribute -> its distinct strings; the place in the list is the code. Every name of ATTRIBUTES is a key.
    codes: attribute -> int32 (V,), -1 where the item lacks it.
    popularity: int64 (V,), interactions of the users that do not evaluate.
    tokens: attribute -> (offsets int64 (n_values + 1,), ids int32): token ids of each distinct string.
    token_vocab_size: size of the token table that all attributes share.
    vocabulary: the token strings by id (empty where a catalogue was built without text).
    source_ids: the numbers that the published files call things by: "item" -> int64 (V,), attribute -> int64
    (n_values,) with -1 for a value without one. Empty for catalogues of another source.
    """

    item_ids: np.ndarray
    values: dict[str, list[str]]
    codes: dict[str, np.ndarray]
    popularity: np.ndarray
    tokens: dict[str, tuple[np.ndarray, np.ndarray]]
    token_vocab_size: int
    vocabulary: list[str] = field(default_factory=list)
    source_ids: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item_ids)

    def attributes(self) -> tuple[str, ...]:
        """The attributes that at least one item has, in the order of ATTRIBUTES."""
        return tuple(name for name in ATTRIBUTES if len(self.values.get(name, ())) > 0)

    def text(self, attribute: str, code: int) -> str:
        """The string of a code; InputError for an unknown attribute or a code past its table."""
        if attribute not in self.values:
            raise InputError(f"There is no attribute '{attribute}': choose one of {', '.join(ATTRIBUTES)}.")
        if not 0 <= code < len(self.values[attribute]):
            raise InputError(f"Code {code} is past the {len(self.values[attribute])} values of '{attribute}'.")
        return self.values[attribute][code]

    def save(self, folder: Path) -> None:
        """Write the catalogue's files into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        items: dict[str, pa.Array | np.ndarray] = {
            "item_id": pa.array(self.item_ids, pa.string()),
            "popularity": self.popularity.astype(np.int64, copy=False),
        }
        items.update({name: self.codes[name].astype(np.int32, copy=False) for name in ATTRIBUTES})
        if "item" in self.source_ids:
            items[_SOURCE_ID] = self.source_ids["item"].astype(np.int64, copy=False)
        write_arrow(folder / "items.arrow", items)
        for name in ATTRIBUTES:
            offsets, ids = self.tokens[name]
            lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(ids, pa.int32()))
            columns = {"value": pa.array(self.values[name], pa.string()), "tokens": lists}
            if name in self.source_ids:
                columns[_SOURCE_ID] = pa.array(self.source_ids[name], pa.int64())
            write_arrow(folder / f"{name}.arrow", columns)
        write_arrow(folder / "vocabulary.arrow", {"token": pa.array(self.vocabulary, pa.string())})

    @classmethod
    def open(cls, folder: Path | str) -> Catalogue:
        """Memory-map a saved catalogue (number arrays are views, strings are read)."""
        folder = Path(folder)
        items = map_arrow(folder / "items.arrow", _ITEMS, {_SOURCE_ID: pa.int64()})
        source_ids = {"item": view(items[_SOURCE_ID])} if _SOURCE_ID in items else {}
        codes = {name: view(items[name]) for name in ATTRIBUTES}
        values: dict[str, list[str]] = {}
        tokens: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        vocabulary = map_arrow(folder / "vocabulary.arrow", {"token": pa.string()})["token"].to_pylist()
        for name in ATTRIBUTES:
            path = folder / f"{name}.arrow"
            columns = map_arrow(path, _VALUES, {_SOURCE_ID: pa.int64()})
            if _SOURCE_ID in columns:
                source_ids[name] = view(columns[_SOURCE_ID])
            values[name] = columns["value"].to_pylist()
            tokens[name] = view(columns["tokens"].offsets), view(columns["tokens"].values)
            _within(path, "tokens", tokens[name][1], len(vocabulary), lowest=0)
            _within(folder / "items.arrow", name, codes[name], len(values[name]), lowest=-1)
        return cls(
            item_ids=np.array(items["item_id"].to_pylist(), object),
            values=values,
            codes=codes,
            popularity=view(items["popularity"]),
            tokens=tokens,
            token_vocab_size=len(vocabulary),
            vocabulary=vocabulary,
            source_ids=source_ids,
        )


def _within(path: Path, column: str, ids: np.ndarray, size: int, lowest: int) -> None:
    if len(ids) and not (lowest <= int(ids.min()) and int(ids.max()) < size):
        raise InputError(
            f"{path}: column '{column}' holds ids outside {lowest}..{size - 1}: run `uqabench prepare` again."
        )
