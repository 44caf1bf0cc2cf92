"""A user's own log: one table (or several) of interactions and one of items, CSV, TSV or Parquet."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.data.log import RawLog, encode, one_chunk
from uqabench.data.rejections import REASONS, Rejections
from uqabench.data.sources.columns import EncodedIds, as_ids, as_text, encode_ids, read_column, short
from uqabench.data.sources.delimited import QUOTINGS, check_encoding
from uqabench.data.sources.kept import KeptLog, Part
from uqabench.data.sources.readers import (
    MALFORMED,
    NOT_UTF8,
    SUFFIXES,
    Files,
    Rows,
    columns_of,
    columns_to_read,
    is_parquet,
    list_files,
    open_parquet,
    read_rows,
)
from uqabench.data.sources.remote import Fetched
from uqabench.data.sources.times import UNITS, form, parse_times, told_alone
from uqabench.errors import InputError
from uqabench.files import sha256_file

INTERACTION_COLUMNS = ("user", "item", "time", "action")
ITEM_COLUMNS = ("item", *ATTRIBUTES)
MAX_ACTIONS = 127  # an action is stored as int8
NO_ACTION = ""
"""The name of what a row without an action did, in a log that has actions."""

_MISSING, _TIME = REASONS.index("missing id"), REASONS.index("unparsable time")
_UNKNOWN, _DUPLICATE = REASONS.index("unknown item"), REASONS.index("duplicate item")

BATCH_ROWS = 1 << 21
"""Rows of a Parquet file that are worked on at once."""

Paths = Path | str | Iterable[Path | str]


class Tables:
    """Reads interactions and items.

    interactions, items: a file, a folder, or several; without them, interactions.* and items.* in folder `path`.
    A URL of an object store that fsspec knows (s3://bucket/folder) is fetched first.
    columns: {"user" | "item" | "time" | "action": column of the interactions}; item_columns: {"item" | "title" |
    "category" | "brand" | "shop" | "seller": column of the items}. A name that is not mapped means the column of
    that name; user and item are required, others may be absent. Without time, rows are in time order as they stand.
    time_unit: "s", "ms", "us", "ns" or "iso" (see `times.parse_times`). encoding: of CSV files. quoting: of CSV files,
    "none", "double" (a quote inside quotes is doubled) or "backslash"; without it as `delimited.default_quoting` finds.
    keep: a folder in which what is read of the interactions is kept. append: interactions to add to those kept there,
    in place of `interactions`; the log is the same as one read from all the files.
    """

    name = "tables"
    accepts = ("interactions", "items", "columns", "item_columns", "time_unit", "encoding", "quoting", "keep", "append")

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
        keep: Path | str | None = None,
        append: Paths | None = None,
    ) -> None:
        check_encoding(encoding)
        _one_of("time_unit", time_unit, (*UNITS, "iso"), "time unit")
        _one_of("quoting", quoting, QUOTINGS, "quoting")
        reading = {"columns": columns, "time_unit": time_unit, "encoding": encoding, "quoting": quoting}
        self.kept = None if keep is None else KeptLog(Path(keep), reading)
        self.fetched = Fetched()
        with self.fetched.named():
            if append is None:
                found = self._found(_given(interactions, path, "interactions"), "interactions")
            else:
                found = self._with_kept(self._found(append, "interactions"))
            found_items = self._found(_given(items, path, "items"), "items")
        notes = (found.note("interactions"), found_items.note("items"))
        self.notes: list[str] = [note for note in notes if note is not None]
        self.interaction_files, self.item_files = found.files, found_items.files
        self.columns = _mapping(columns, INTERACTION_COLUMNS, "columns")
        self.item_columns = _mapping(item_columns, ITEM_COLUMNS, "item_columns")
        self.optional = frozenset(("time", "action")) - set(columns or ())
        self.optional_item = frozenset(ATTRIBUTES) - set(item_columns or ())
        self.time_unit, self.encoding, self.quoting = time_unit, encoding, quoting
        self.labels = labels_of([*self.item_files, *self.interaction_files])
        self.partitions = _mapped(found, self.columns) | _mapped(found_items, self.item_columns)
        if self.kept is not None and self.partitions:
            path = min(self.partitions)
            raise InputError(
                f"{path}: '{next(iter(self.partitions[path]))}' is a column that its folders say, and keep and append "
                "take files that have all columns themselves: map another column, or leave them out."
            )

    def options(self) -> dict[str, Any]:
        mapped = {"columns": self.columns, "item_columns": self.item_columns}
        named = {self.labels[path]: dict(columns) for path, columns in self.partitions.items()}
        said = {"partitions": named} if named else {}
        return {**mapped, "time_unit": self.time_unit, "encoding": self.encoding, "quoting": self.quoting, **said}

    def inputs(self) -> dict[str, str]:
        files = set(self.interaction_files) if self.kept is not None else set()
        return {
            label: self.kept.digest(path) if self.kept is not None and path in files else sha256_file(path)
            for path, label in self.labels.items()
        }

    def _found(self, paths: Paths, what: str) -> Files:
        found = list_files(self.fetched.local(paths, what, SUFFIXES), what)
        if what == "interactions" and self.kept is not None and self.fetched.any_of(found.files):
            raise InputError("keep and append take files of this machine: copy the objects to a folder first.")
        return found

    def _with_kept(self, new: Files) -> Files:
        """The files kept and the new ones, in the order in which they would be read together."""
        if self.kept is None or not self.kept.files:
            raise InputError("append adds to interactions that were kept: prepare the first files with keep=FOLDER.")
        paths = {path.resolve() for path in new.files} | {Path(name) for name in self.kept.files}
        return Files(sorted(paths, key=lambda path: path.as_posix()), new.skipped)

    def named(self) -> AbstractContextManager[None]:
        """See `PartedSource`."""
        return self.fetched.named()

    def read(self, rejections: Rejections) -> RawLog:
        with self.named():
            return self._read(rejections)

    def _read(self, rejections: Rejections) -> RawLog:
        item_ids, attributes = self.read_items(rejections)
        parts = [part for path in self.interaction_files for part in self.parts(path, item_ids, rejections)]
        times = in_all_or_none([part.times for part in parts], "time")
        actions = in_all_or_none([part.actions for part in parts], "action")
        self.finish()
        user_ids, users = _united([part.users for part in parts])
        bought, codes = _united([part.items for part in parts])
        place = pc.index_in(bought, value_set=item_ids).fill_null(-1).to_numpy(zero_copy_only=False)
        names, codes_of_actions = _actions(actions)
        total = sum(len(part.rows.reasons) + len(part.rows.malformed) for part in parts)
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
        good = np.concatenate([part.rows.reasons for part in parts]) < 0
        if not good.all():
            log.select(good)
        return log

    def finish(self) -> None:
        """See `PartedSource`."""
        if self.kept is not None:
            self.kept.finish(self.interaction_files)

    def portable(self) -> Tables:
        """See `PartedSource`; what was fetched stays with this one."""
        sent = copy.copy(self)
        sent.fetched = Fetched()
        return sent

    def _rows(self, path: Path, mapping: Mapping[str, str], optional: frozenset[str]) -> Rows:
        """The mapped columns of one file."""
        return read_rows(path, mapping, optional, self.encoding, self.quoting, self.partitions.get(path))

    def read_items(self, rejections: Rejections) -> tuple[pa.Array, dict[str, pa.Array]]:
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

    def parts(self, path: Path, item_ids: pa.Array, rejections: Rejections) -> Iterator[Part]:
        """An interaction file's rows, the bad ones marked and reported. Parquet comes BATCH_ROWS rows at a time, text
        whole."""
        parts = None if self.kept is None else self.kept.load(path)
        if parts is None:
            parts = self._parquet_parts(path) if is_parquet(path) else self._delimited_part(path)
            if self.kept is not None:
                parts = list(parts)
                self.kept.save(path, parts)
        for part in parts:
            rows = part.rows
            known = np.r_[_known(part.items.ids, item_ids), False]
            rows.reject(~known[part.items.codes], _UNKNOWN)
            self._report(path, rows, rejections)
            rows.numbers = rows.lines = np.zeros(0, np.int64)  # reported, and as large as the log
            rows.columns = {}
            yield part

    def _delimited_part(self, path: Path) -> Iterator[Part]:
        rows = self._rows(path, self.columns, self.optional)
        rows.reject_broken(["user", "item", "time"])
        users, items = (
            encode_ids(pa.chunked_array([rows.columns[name]]), self._where(path, self.columns[name]))
            for name in ("user", "item")
        )
        rows.reject((users.codes < 0) | (items.codes < 0), _MISSING)
        times = None
        if "time" in rows.columns:
            times, bad = parse_times(rows.columns["time"], self.time_unit, self._where(path, self.columns["time"]))
            rows.reject(bad, _TIME)
        yield Part(rows, users, items, times, self._actions(path, rows))

    def _parquet_parts(self, path: Path) -> Iterator[Part]:
        """BATCH_ROWS rows at a time, for an id takes five times the memory as text. Times are read as a whole where how
        they are written shows in all of them."""
        partition = self.partitions.get(path, {})
        with open_parquet(path, self.columns, self.optional, partition) as (file, present):
            stamps = times = late = not_utf8 = None
            schema = file.schema_arrow
            alone = present.get("time") in schema.names and told_alone(
                schema.field(present["time"]).type, self.time_unit
            )
            if "time" in present and not alone:
                read = read_rows(path, {"time": present["time"]}, frozenset(), self.encoding, partition=partition)
                stamps, not_utf8 = read.columns["time"], read.reasons >= 0
                del read
                times, late = parse_times(stamps, self.time_unit, self._where(path, present["time"]))
                stamps = stamps if pa.types.is_large_string(stamps.type) else None
            names = {name: column for name, column in present.items() if name != "time" or alone}
            first = 0
            read = columns_to_read(schema.names, names.values())
            for batch in file.iter_batches(BATCH_ROWS, columns=read):
                span = slice(first, first + len(batch))
                ones = np.ones(len(batch), np.int64)
                rows = Rows({}, np.arange(span.start + 1, span.stop + 1), ones, np.full(len(batch), -1, np.int8))
                found = columns_of(pa.Table.from_batches([batch]), names, partition)
                users, items = (encode_ids(found[name], self._where(path, names[name])) for name in ("user", "item"))
                rows.reject(users.not_utf8 | items.not_utf8, NOT_UTF8)
                if stamps is not None:
                    rows.columns["time"] = stamps[span]
                    rows.reject(not_utf8[span], NOT_UTF8)
                if "action" in found:
                    rows.columns["action"], bad = read_column(found["action"], self._where(path, names["action"]))
                    rows.reject(bad, NOT_UTF8)
                rows.reject(users.broken | items.broken, MALFORMED)
                rows.reject_broken(["time"])
                rows.reject((users.codes < 0) | (items.codes < 0), _MISSING)
                when = None if times is None else times[span]
                if alone:
                    where = self._where(path, names["time"])
                    when, bad = parse_times(read_column(found["time"], where)[0], self.time_unit, where)
                    rows.reject(bad, _TIME)
                elif late is not None:
                    rows.reject(late[span], _TIME)
                yield Part(rows, users, items, when, self._actions(path, rows))
                first = span.stop
            if first == 0:  # a file without rows has columns all the same
                empty = encode_ids(pa.chunked_array([pa.array([], pa.string())]), str(path))
                rows = Rows({}, *(np.zeros(0, kind) for kind in (np.int64, np.int64, np.int8)))
                none = pa.array([], pa.large_string()) if "action" in present else None
                yield Part(rows, empty, empty, np.zeros(0, np.int64) if "time" in present else None, none)

    def _actions(self, path: Path, rows: Rows) -> pa.Array | None:
        if "action" not in rows.columns:
            return None
        return as_ids(rows.columns["action"], self._where(path, self.columns["action"]))

    def _where(self, path: Path, column: str) -> str:
        return f"{path}: column '{short(column)}'"

    def _report(self, path: Path, rows: Rows, rejections: Rejections) -> None:
        bad = rows.rejected()

        def form_of(i: int) -> str | None:
            times = rows.columns.get("time") if bad.reasons[i] == _TIME else None
            if times is None or not pa.types.is_large_string(times.type):
                return None
            value = times[bad.places[i]].as_py()
            return None if value is None else form(value)

        rejections.add(self.labels[path], bad.numbers, bad.reasons, bad.lines, form_of)


def _united(parts: list[EncodedIds]) -> tuple[pa.Array, np.ndarray]:
    """(distinct ids, int32 codes by row) of consecutive rows; ids that no row has are left out."""
    ids = pc.unique(pa.chunked_array([part.ids for part in parts], pa.string()))
    codes = []
    for part in parts:
        place = pc.index_in(part.ids, value_set=ids).to_numpy(zero_copy_only=False)
        codes.append(np.r_[place, -1].astype(np.int32)[part.codes])
    united = np.concatenate(codes)
    used = np.bincount(united[united >= 0], minlength=len(ids)) > 0
    if used.all():
        return ids, united
    place = np.r_[np.where(used, np.cumsum(used) - 1, -1), -1].astype(np.int32)
    return ids.filter(pa.array(used)), place[united]


def _mapped(found: Files, mapping: Mapping[str, str]) -> dict[Path, dict[str, str | None]]:
    """The mapped columns that the paths of files say."""
    wanted = set(mapping.values())
    own = {path: {name: named[name] for name in named if name in wanted} for path, named in found.partitions.items()}
    return {path: named for path, named in own.items() if named}


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


def in_all_or_none(columns: list[Any], name: str) -> list[Any]:
    """The columns of parts of a log, or nothing where none has one (None); InputError where only some have."""
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
    names, codes = encode(pa.concat_arrays(columns).fill_null(NO_ACTION))
    check_actions(len(names))
    order = pc.array_sort_indices(names).to_numpy()
    return names.take(pa.array(order)).to_pylist(), np.argsort(order).astype(np.int8)[codes]


def check_actions(distinct: int) -> None:
    """InputError where a log has more kinds of action than a store can tell apart."""
    if distinct > MAX_ACTIONS:
        raise InputError(f"The action column has {distinct} distinct values and may have {MAX_ACTIONS}: map another.")
