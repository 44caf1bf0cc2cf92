"""Writes a store and its questions as the published Arrow files, with sidecars for what those have no column for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from uqabench.data.catalogue import Catalogue
from uqabench.data.official.given import GivenQuestions
from uqabench.data.official.layout import (
    FEATURES,
    ID_COLUMNS,
    ITEM,
    ITEM_NAMES,
    LISTS,
    SIDES,
    TEXT,
    TOKEN_COLUMNS,
    TOKENS,
    data_file,
    sidecar,
)
from uqabench.data.official.ragged import Lists, offsets_of
from uqabench.data.official.sidecars import write_sidecar
from uqabench.data.official.source import TOKENIZER
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.files import atomic_folder, folder_files
from uqabench.vocabulary import LETTERS, SUBTASKS

Encode = Callable[[list[str]], list[list[int]]]
"""Texts to token ids of Qwen2.5."""

_ROWS = 512


def write_official(
    store: InteractionStore,
    questions: Mapping[str, GivenQuestions],
    n_history: int,
    folder: Path | str,
    encode: Encode | None = None,
) -> None:
    """Write four published files (and sidecars) into `folder`, whole or not at all.

    questions: by split ("train", "evaluation"); the history of one is the last `n_history` items before its cut.
    Validation users, whom the published files do not know, are written among the training users.
    encode: makes the token ids of a store whose token ids are not those of Qwen2.5 already; its texts are then written
    anew. Items and values without a published number get their index. InputError for a folder that holds other files.
    """
    folder = Path(folder)
    _refuse_foreign(folder)
    store = store.about("evaluation")
    features = _Features(store, encode)
    with atomic_folder(folder) as out:
        for number, (split, side) in enumerate(SIDES.items()):
            asked = questions[split]
            name = data_file("pretrain", side)
            users = np.flatnonzero(store.split == number)
            begins, ends = store.offsets[users], store.offsets[users + 1]
            _write(out / name, features, begins, ends)
            _write_users(out / sidecar(name), store, users)
            name = data_file("align", side)
            ends = store.offsets[asked.user] + asked.cut
            begins = np.maximum(store.offsets[asked.user], ends - n_history)
            _write(out / name, features, begins, ends, _texts(asked))
            columns = {"user": pa.array(asked.user, pa.int32()), "cut": pa.array(asked.cut, pa.int32())}
            columns["subtask"] = pa.array([SUBTASKS[i] for i in asked.subtask.tolist()], pa.string())
            write_sidecar(out / sidecar(name), columns)
        if any(str(number) != name for number, name in zip(features.items, store.catalogue.item_ids, strict=True)):
            names = pa.array(store.catalogue.item_ids, pa.string())
            write_sidecar(out / ITEM_NAMES, {"id": pa.array(features.items, pa.int64()), "item_id": names})


def official_names() -> frozenset[str]:
    """Every file that an export may write."""
    files = [data_file(stage, side) for stage in ("pretrain", "align") for side in SIDES.values()]
    return frozenset((*files, *map(sidecar, files), ITEM_NAMES))


def _refuse_foreign(folder: Path) -> None:
    if os.path.isfile(folder):
        raise InputError(f"{folder} is a file: name a folder to write.")
    foreign = sorted(set(folder_files(folder)) - official_names()) if os.path.isdir(folder) else []
    if foreign:
        raise InputError(f"{folder} holds '{foreign[0]}', which is no published file: name another folder.")


class _Features:
    """The ten lists of ids of every item."""

    def __init__(self, store: InteractionStore, encode: Encode | None) -> None:
        catalogue = store.catalogue
        self.store = store
        self.items = np.asarray(catalogue.source_ids.get("item", np.arange(len(catalogue))), np.int64)
        self.lists = {ITEM: _ones(self.items)}
        for name, column in ID_COLUMNS.items():
            numbers = catalogue.source_ids.get(name, np.arange(len(catalogue.values[name])))
            self.lists[column] = _ones(np.r_[numbers, -1].astype(np.int64)[catalogue.codes[name]])
        own = store.manifest.get("tokenizer") == TOKENIZER
        if not own and encode is None:
            raise InputError("The store's token ids are not those of Qwen2.5: give the tokenizer that makes them.")
        for name, column in TOKEN_COLUMNS.items():
            tokens = _value_tokens(catalogue, name, None if own else encode)
            codes = catalogue.codes[name]
            present = codes >= 0
            places = np.where(present, codes, 0)
            bounds = np.r_[tokens[0], tokens[0][-1]]  # a value's place must exist even where there are no values
            starts = np.where(present, bounds[places], 0)
            ends = np.where(present, bounds[places + 1], 0)
            self.lists[column] = Lists(starts, ends, tokens[1].astype(np.int64))

    def batch(self, begins: np.ndarray, ends: np.ndarray) -> list[pa.Array]:
        """The ten columns of sequences begins[i]:ends[i] of the store's interactions."""
        offsets = offsets_of(ends - begins)
        rows = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], ends - begins)
        items = self.store.items[rows]
        return [_nested(offsets, self.lists[name].take(items)) for name in FEATURES]


def _ones(ids: np.ndarray) -> Lists:
    """A list of one id each; an empty one for -1."""
    starts = np.arange(len(ids), dtype=np.int64)
    return Lists(starts, starts + (ids >= 0), ids)


def _value_tokens(catalogue: Catalogue, name: str, encode: Encode | None) -> tuple[np.ndarray, np.ndarray]:
    if encode is None:
        return catalogue.tokens[name]
    ids = encode(catalogue.values[name]) if catalogue.values[name] else []
    flat = np.array([token for row in ids for token in row], np.int64)
    if len(flat) and not 0 <= flat.min() <= flat.max() < TOKENS:
        raise InputError(f"The tokenizer gives ids outside 0..{TOKENS - 1}: use that of Qwen2.5.")
    return offsets_of(np.array([len(row) for row in ids], np.int64)), flat


def _nested(offsets: np.ndarray, lists: Lists) -> pa.Array:
    inner, flat = lists.flat()
    values = pa.ListArray.from_arrays(pa.array(inner, pa.int32()), pa.array(flat, pa.int64()))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _write(
    path: Path, features: _Features, begins: np.ndarray, ends: np.ndarray, texts: Iterator[str] | None = None
) -> None:
    fields = [(name, LISTS) for name in FEATURES] + ([(TEXT, pa.string())] if texts is not None else [])
    schema = pa.schema(fields)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(begins), _ROWS):
            part = slice(start, start + _ROWS)
            columns = features.batch(begins[part], ends[part])
            if texts is not None:
                columns.append(pa.array([next(texts) for _ in begins[part]], pa.string()))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _texts(questions: GivenQuestions) -> Iterator[str]:
    for question, answer in zip(questions.texts, questions.answer.tolist(), strict=True):
        turns = [("user", question), ("assistant", LETTERS[answer])]
        yield json.dumps([{"role": role, "content": content} for role, content in turns], ensure_ascii=False)


def _write_users(path: Path, store: InteractionStore, users: np.ndarray) -> None:
    columns: dict[str, pa.Array] = {
        "user_id": pa.array([store.user_ids[user] for user in users.tolist()], pa.string()),
        "place": pa.array(users, pa.int64()),
    }
    offsets = offsets_of(store.lengths[users])
    rows = np.arange(offsets[-1]) + np.repeat(store.offsets[users] - offsets[:-1], store.lengths[users])
    for name, values, kind in (("timestamp", store.timestamps, pa.int64()), ("action", store.actions, pa.int8())):
        if values is not None:
            columns[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[rows], kind))
    write_sidecar(path, columns, store.manifest.get("actions", []))
