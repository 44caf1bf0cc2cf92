"""A user's own log: one table (or several) of interactions and one of items, CSV, TSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.data.log import RawLog, encode, one_chunk
from uqabench.data.rejections import REASONS, Rejections
from uqabench.data.sources.columns import as_ids, as_text, short
from uqabench.data.sources.delimited import QUOTINGS, check_encoding
from uqabench.data.sources.readers import SUFFIXES, Rows, list_files, read_rows
from uqabench.data.sources.times import UNITS, form, parse_times
from uqabench.errors import InputError
from uqabench.files import sha256_file

INTERACTION_COLUMNS = ("user", "item", "time", "action")
ITEM_COLUMNS = ("item", *ATTRIBUTES)
MAX_ACTIONS = 127  # an action is stored as int8

_MISSING, _TIME = REASONS.index("missing id"), REASONS.index("unparsable time")
_UNKNOWN, _DUPLICATE = REASONS.index("unknown item"), REASONS.index("duplicate item")

Paths = Path | str | Iterable[Path | str]


@dataclass
class _Part:
    """One interaction file, bad rows included."""

    rows: Rows
    users: pa.Array
    items: pa.Array
    times: np.ndarray | None
    actions: pa.Array | None


class Tables:
    """Reads interactions and items.

    interactions, items: a file, a folder, or several; without them, interactions.* and items.* in folder `path`.
    columns: {"user" | "item" | "time" | "action": column of the interactions}; item_columns: {"item" | "title" |
    "category" | "brand" | "shop" | "seller": column of the items}. A name that is not mapped means the column of
    that name; user and item are required, others may be absent. Without time, rows are in time order as they stand.
    time_unit: "s", "ms", "us", "ns" or "iso" (see `times.parse_times`). encoding: of CSV files. quoting: of CSV files,
    "none", "double" (a quote inside quotes is doubled) or "backslash"; without it as `delimited.default_quoting` finds.
    """

    name = "tables"
    accepts = ("interactions", "items", "columns", "item_columns", "time_unit", "encoding", "quoting")

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        interactions: Paths | None = None,
        items: Paths | None = None,
        columns: Mapping[str, str] | None = None,
        item_columns: Mapping[str, str] | None = None,
        time_unit: str | None = None,
        encoding: str = "utf8",
        quoting: str | None = None,
    ) -> None:
        check_encoding(encoding)
        _one_of("time_unit", time_unit, (*UNITS, "iso"), "time unit")
        _one_of("quoting", quoting, QUOTINGS, "quoting")
        found = list_files(_given(interactions, path, "interactions"), "interactions")
        found_items = list_files(_given(items, path, "items"), "items")
        notes = (found.note("interactions"), found_items.note("items"))
        self.notes: list[str] = [note for note in notes if note is not None]
        self.interaction_files, self.item_files = found.files, found_items.files
        self.columns = _mapping(columns, INTERACTION_COLUMNS, "columns")
        self.item_columns = _mapping(item_columns, ITEM_COLUMNS, "item_columns")
        self.optional = frozenset(("time", "action")) - set(columns or ())
        self.optional_item = frozenset(ATTRIBUTES) - set(item_columns or ())
        self.time_unit, self.encoding, self.quoting = time_unit, encoding, quoting
        self.labels = labels_of([*self.item_files, *self.interaction_files])

    def options(self) -> dict[str, Any]:
        mapped = {"columns": self.columns, "item_columns": self.item_columns}
        return {**mapped, "time_unit": self.time_unit, "encoding": self.encoding, "quoting": self.quoting}

    def inputs(self) -> dict[str, str]:
        return {label: sha256_file(path) for path, label in self.labels.items()}

    def read(self, rejections: Rejections) -> RawLog:
        item_ids, attributes = self._read_items(rejections)
        parts = [self._read_interactions(path, item_ids, rejections) for path in self.interaction_files]
        times = _in_all_or_none([part.times for part in parts], "time")
        actions = _in_all_or_none([part.actions for part in parts], "action")
        user_ids, users = encode(pa.concat_arrays([part.users for part in parts]))
        bought, codes = encode(pa.concat_arrays([part.items for part in parts]))
        place = pc.index_in(bought, value_set=item_ids).fill_null(-1).to_numpy(zero_copy_only=False)
        names, codes_of_actions = _actions(actions)
        total = sum(len(part.rows.numbers) + len(part.rows.malformed) for part in parts)
        log = RawLog(
            user_ids=user_ids,
            users=users,
            item_ids=item_ids,
            items=np.r_[place, -1].astype(np.int32)[codes],
            attributes=attributes,
            read=(len(user_ids), len(bought), total),
            times=np.concatenate(times) if times else None,
            actions=codes_of_actions,
            action_names=names,
        )
        log.select(np.concatenate([part.rows.reasons for part in parts]) < 0)
        return log

    def _rows(self, path: Path, mapping: Mapping[str, str], optional: frozenset[str]) -> Rows:
        """The mapped columns of one file."""
        return read_rows(path, mapping, optional, self.encoding, self.quoting)

    def _read_items(self, rejections: Rejections) -> tuple[pa.Array, dict[str, pa.Array]]:
        """Distinct item ids, and an array aligned with them for every attribute that a file has."""
        parts = []
        seen: pa.Array = pa.array([], pa.string())
        for path in self.item_files:
            rows = self._rows(path, self.item_columns, self.optional_item)
            rows.reject_broken(["item"])
            ids = as_ids(rows.columns["item"], self._where(path, self.item_columns["item"])).cast(pa.string())
            rows.reject(_is_null(ids), _MISSING)
            rows.reject(_repeats(ids, rows.reasons < 0) | _known(ids, seen), _DUPLICATE)
            self._report(path, rows, rejections)
            good = pa.array(rows.reasons < 0)
            names = [name for name in ATTRIBUTES if name in rows.columns]
            columns = {name: as_text(rows.columns[name]).cast(pa.string()).filter(good) for name in names}
            parts.append(pa.table({"item": ids.filter(good), **columns}))
            seen = pa.concat_arrays([seen, ids.filter(good)])
        table = pa.concat_tables(parts, promote_options="default")
        return one_chunk(table["item"]), {name: one_chunk(table[name]) for name in table.column_names[1:]}

    def _read_interactions(self, path: Path, item_ids: pa.Array, rejections: Rejections) -> _Part:
        rows = self._rows(path, self.columns, self.optional)
        rows.reject_broken(["user", "item", "time"])
        users, items = (as_ids(rows.columns[name], self._where(path, self.columns[name])) for name in ("user", "item"))
        rows.reject(_is_null(users) | _is_null(items), _MISSING)
        times = None
        if "time" in rows.columns:
            times, bad = parse_times(rows.columns["time"], self.time_unit, self._where(path, self.columns["time"]))
            rows.reject(bad, _TIME)
        rows.reject(~_known(items.cast(pa.large_string()), item_ids), _UNKNOWN)
        self._report(path, rows, rejections)
        where = self._where(path, self.columns["action"])
        actions = as_ids(rows.columns["action"], where) if "action" in rows.columns else None
        return _Part(rows, users, items, times, actions)

    def _where(self, path: Path, column: str) -> str:
        return f"{path}: column '{short(column)}'"

    def _report(self, path: Path, rows: Rows, rejections: Rejections) -> None:
        bad = rows.rejected()

        def form_of(i: int) -> str | None:
            times = rows.columns["time"] if bad.reasons[i] == _TIME else None
            if times is None or not pa.types.is_large_string(times.type):
                return None
            value = times[bad.places[i]].as_py()
            return None if value is None else form(value)

        rejections.add(self.labels[path], bad.numbers, bad.reasons, bad.lines, form_of)


def _one_of(option: str, value: Any, choices: tuple[str, ...], what: str) -> None:
    if value is not None and value not in choices:
        raise InputError(f"{option}: there is no {what} {short(repr(value))}: choose one of {', '.join(choices)}.")


def _given(paths: Paths | None, folder: Path | str | None, what: str) -> Paths:
    if paths is not None:
        return paths
    if folder is None:
        raise InputError(f"The source 'tables' needs {what}: name a CSV or Parquet file with --{what}.")
    found = [file for file in sorted(Path(folder).glob(f"{what}.*")) if file.name.lower().endswith(SUFFIXES)]
    if not found:
        raise InputError(f"{folder} holds no {what}.csv or {what}.parquet: name the file with --{what}.")
    stems = [
        file.name.lower().removesuffix(next(s for s in SUFFIXES if file.name.lower().endswith(s))) for file in found
    ]
    if len(set(stems)) < len(stems):
        raise InputError(f"{folder} holds {found[0].name} and {found[1].name}: name the one to read with --{what}.")
    return found


def _mapping(given: Mapping[str, str] | None, names: tuple[str, ...], option: str) -> dict[str, str]:
    if not isinstance(given or {}, Mapping) or not all(isinstance(column, str) for column in (given or {}).values()):
        raise InputError(
            f"{option} is {short(repr(given))} and should map fields to names of columns, such as user: uid."
        )
    for name in given or {}:
        if name not in names:
            raise InputError(f"{option} maps '{short(str(name))}', which is no field: it can map {', '.join(names)}.")
    return {name: name for name in names} | dict(given or {})


def labels_of(paths: list[Path]) -> dict[Path, str]:
    """The files' names, with as much of the folders as tells them apart."""
    if len({path.name for path in paths}) == len(set(paths)):
        return {path: path.name for path in paths}
    root = os.path.commonpath([path.resolve().parent for path in paths])
    return {path: path.resolve().relative_to(root).as_posix() for path in paths}


def _in_all_or_none(columns: list[Any], name: str) -> list[Any]:
    present = [column for column in columns if column is not None]
    if present and len(present) < len(columns):
        raise InputError(
            f"Some interaction files have a column for '{name}' and some have none: let all have it or none."
        )
    return present


def _is_null(column: pa.Array) -> np.ndarray:
    return column.is_null().to_numpy(zero_copy_only=False)


def _known(column: pa.Array, values: pa.Array) -> np.ndarray:
    return pc.is_in(column, value_set=values.cast(column.type)).to_numpy(zero_copy_only=False)


def _repeats(ids: pa.Array, good: np.ndarray) -> np.ndarray:
    """bool: rows whose id a good row before them has."""
    codes = encode(ids)[1]
    rows = np.flatnonzero(good & (codes >= 0))
    first = np.full(len(ids), len(ids), np.int64)
    np.minimum.at(first, codes[rows], rows)
    return (codes >= 0) & (first[codes] < np.arange(len(ids)))


def _actions(columns: list[pa.Array]) -> tuple[list[str], np.ndarray | None]:
    """Names in sorted order and int8 codes; a row without action gets the name ''."""
    if not columns:
        return [], None
    names, codes = encode(pa.concat_arrays(columns).fill_null(""))
    if len(names) > MAX_ACTIONS:
        raise InputError(f"The action column has {len(names)} distinct values and may have {MAX_ACTIONS}: map another.")
    order = pc.array_sort_indices(names).to_numpy()
    return names.take(pa.array(order)).to_pylist(), np.argsort(order).astype(np.int8)[codes]
