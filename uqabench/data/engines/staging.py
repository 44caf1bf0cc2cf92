"""The files of a log, as their source reads them, laid down as Parquet for an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uqabench.data.arrow import map_arrow, write_arrow
from uqabench.data.engines.engine import Engine
from uqabench.data.log import PartedSource
from uqabench.data.rejections import Rejections
from uqabench.data.sources.kept import Part
from uqabench.data.sources.tables import NO_ACTION, in_all_or_none
from uqabench.errors import InputError

ROWS = "staged"
"""The folder of the interactions: one Parquet file for each of the log's."""
_ITEMS = "items.arrow"
_SCHEMA = pa.schema({
    "name": pa.string(), "item": pa.int32(), "unknown": pa.string(), "time": pa.int64(), "action": pa.string(),
    "file": pa.int32(), "row": pa.int64(), "good": pa.bool_(),
})  # fmt: skip
"""name: the user's id. item: its place among the item ids; unknown: the id of an item that is not among them. time:
microseconds. file, row: where it stood, which breaks ties. good: False for rejected rows, which are only counted."""


@dataclass(frozen=True)
class Staged:
    """What there is beside the rows. read: rows of the input, malformed ones included. times, actions: whether the log
    has them."""

    read: int
    times: bool
    actions: bool


@dataclass
class _File:
    """What a process that read a file tells of it; error: why it could not be read."""

    read: int = 0
    times: list[bool] = field(default_factory=list)
    actions: list[bool] = field(default_factory=list)
    rejections: Rejections = field(default_factory=Rejections)
    error: str | None = None


def stage(engine: Engine, source: PartedSource, item_ids: pa.Array, rejections: Rejections) -> Staged:
    """Let the engine read all files of `source` into its folder; bad rows go to `rejections`.

    Raises InputError for the first file that cannot be read, or holds a bad row under `rejections.strict`.
    """
    (engine.folder / ROWS).mkdir()
    write_arrow(engine.folder / _ITEMS, {"item": item_ids})
    read, times, actions = 0, [], []
    task = partial(_stage_file, source.portable(), engine.folder, rejections.strict)
    for file in engine.each(task, len(source.interaction_files)):
        if file.error is not None:
            raise InputError(file.error)
        rejections.add_those_of(file.rejections)
        read, times, actions = read + file.read, times + file.times, actions + file.actions
    source.finish()
    present = {
        name: bool(in_all_or_none([True if one else None for one in found], name))
        for name, found in (("time", times), ("action", actions))
    }
    return Staged(read, present["time"], present["action"])


def _stage_file(source: PartedSource, folder: Path, strict: bool, number: int) -> _File:
    """Read one file; what is wrong with it is told, since an exception of another process would lose its kind."""
    told = _File(rejections=Rejections(strict))
    item_ids = map_arrow(folder / _ITEMS, {"item": pa.string()})["item"]
    place = folder / ROWS / f"{number:06d}.parquet"
    try:
        with pq.ParquetWriter(place, _SCHEMA) as writer:
            first = 0
            for part in source.parts(source.interaction_files[number], item_ids, told.rejections):
                writer.write_batch(_batch(part, item_ids, number, first))
                first += len(part.rows.reasons)
                told.read += len(part.rows.reasons) + len(part.rows.malformed)
                told.times.append(part.times is not None)
                told.actions.append(part.actions is not None)
    except InputError as error:
        told.error = str(error)
    return told


def _batch(part: Part, item_ids: pa.Array, number: int, first: int) -> pa.RecordBatch:
    size = len(part.rows.reasons)
    place = pc.index_in(part.items.ids, value_set=item_ids)
    unknown = pc.if_else(place.is_null(), part.items.ids, pa.scalar(None, pa.string()))
    items = pa.array(part.items.codes, mask=part.items.codes < 0)
    none = pa.nulls(size, pa.string())
    columns = {
        "name": part.users.ids.take(pa.array(part.users.codes, mask=part.users.codes < 0)),
        "item": place.take(items),
        "unknown": unknown.take(items),
        "time": pa.nulls(size, pa.int64()) if part.times is None else pa.array(part.times, pa.int64()),
        "action": none if part.actions is None else part.actions.cast(pa.string()).fill_null(NO_ACTION),
        "file": pa.array(np.full(size, number, np.int32)),
        "row": pa.array(np.arange(first, first + size, dtype=np.int64)),
        "good": pa.array(part.rows.reasons < 0),
    }
    return pa.record_batch(list(columns.values()), schema=_SCHEMA)
