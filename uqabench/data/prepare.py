"""From a source to a store: read, exclude, filter, split, anonymise, write."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from uqabench.artifact import build
from uqabench.data.anonymise import anonymise, fingerprint, read_salt
from uqabench.data.arrow import write_arrow
from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.engines import engine_log
from uqabench.data.facts import COUNTED, counts_of_store
from uqabench.data.log import MICROSECONDS, FinishedSource, Log, PartedSource, RawLog, Removal, Source, one_chunk
from uqabench.data.preprocess import exclude, filter_log
from uqabench.data.rejections import Rejections
from uqabench.data.shards import is_shard
from uqabench.data.split import (
    EVALUATION,
    name_digests,
    published_order,
    sequence_digests,
    split_hash,
    split_users,
    two_sided,
)
from uqabench.data.store import FORMAT, STAGE, STORE_FILES, InteractionStore
from uqabench.data.tokens import build_tokens
from uqabench.errors import InputError
from uqabench.files import folder_files, read_json
from uqabench.settings.data import PrepareConfig

_STEPS = ("read", "filter", "split", "write")


def prepare(
    source: Source, out: Path | str, config: PrepareConfig | None = None, progress: bool = True
) -> InteractionStore:
    """Write the store of `source` into folder `out` and open it.

    The folder appears whole or not at all. A folder that the same source, input files and settings made is opened
    as it is; one that holds anything but a store's files is never replaced (InputError). `progress` shows a bar on
    stderr. What was read, removed and rejected is in the store's store.json; `describe` makes a table of it.
    """
    out, config = Path(out), config or PrepareConfig()
    refuse_foreign(out, config)
    kept = getattr(source, "kept", None)
    if kept is not None and kept.folder.resolve().is_relative_to(out.resolve()):
        raise InputError(f"The kept log {kept.folder} lies inside {out}: it holds users' ids, so keep it apart.")

    def make(folder: Path, work: Path) -> float:
        start = time.perf_counter()
        write_store(source, folder, config, progress)
        return time.perf_counter() - start

    absent = [parent for parent in out.parents if not os.path.exists(parent)]
    try:
        artifact, _ = build(out, STAGE, *prepare_key(source, config), make, digests=False)
    except BaseException:
        for parent in absent:  # made for nothing
            with suppress(OSError):
                parent.rmdir()
        raise
    return InteractionStore.of(artifact)


def prepare_key(source: Source, config: PrepareConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """(config, inputs) of the stage that prepares `source`: two preparations with equal ones make equal stores.

    config: JSON values. inputs: SHA-256 of each file of the source by its label, and a one-way mark of the salt file.
    Reads those files; InputError when one cannot be read.
    """
    inputs = {f"file:{name}": digest for name, digest in source.inputs().items()}
    if config.salt_file is not None:
        inputs["salt"] = fingerprint(read_salt(config.salt_file))
    settings = {"source": source.name, "options": source.options(), "prepare": config.record(), "format": FORMAT}
    return settings, inputs


def write_store(source: Source, folder: Path, config: PrepareConfig, progress: bool = True) -> None:
    """Read `source`, filter, split and anonymise it, and write the store's files into `folder`, which exists.

    Raises InputError for files that cannot be read, a log of which nothing is left, and under `config.strict` for the
    first bad row.
    """
    if config.engine.name != "arrow" and not isinstance(source, PartedSource):
        raise InputError(
            f"The source '{source.name}' is held in memory as a whole, so that {config.engine.name} would do nothing "
            "for it: leave out --engine."
        )
    if isinstance(source, FinishedSource):
        source.write_store(folder, config)
        return
    salt = read_salt(config.salt_file)
    with tqdm(total=len(_STEPS), desc="prepare", disable=not progress, leave=False) as bar:
        rejections = Rejections(config.strict)
        log = _filtered(source, config, rejections, bar)
        store, truth = _compact(log, config, salt)
        store = replace(store, manifest=store.manifest | _facts(store, log, source, config, rejections))
        bar.update()
        rejections.save(folder / "rejected.jsonl")
        if truth is not None:
            write_arrow(folder / "truth.arrow", truth)
        store.write_files(folder, config.shard_rows)
        bar.update()


def _filtered(source: Source, config: PrepareConfig, rejections: Rejections, bar: tqdm) -> RawLog:
    """What stays of the log, sorted by user and time."""

    def apply_rules(log: Log) -> None:
        if not len(log):
            raise InputError(_nothing_read(source, rejections))
        _count_rejected(log)
        bar.update()
        exclude(log, config)
        filter_log(log, config)
        bar.update()

    if config.engine.name == "arrow":
        log = source.read(rejections)
        apply_rules(log)
        return log
    with engine_log(source, config.engine, rejections) as there:
        apply_rules(there)
        return there.collect()


def refuse_foreign(out: Path, config: PrepareConfig) -> None:
    """A typing error in the folder's name must cost nobody a folder or a salt file of their own (InputError)."""
    try:
        os.stat(out)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"Cannot write {out} ({error.strerror}): name another folder.") from error
    if os.path.isfile(out):
        raise InputError(f"{out} is a file: name a folder to write.")
    if config.salt_file is not None and Path(config.salt_file).resolve().is_relative_to(out.resolve()):
        raise InputError(f"The salt file {config.salt_file} lies inside {out}: keep it apart from the data.")
    if os.path.isdir(out):
        foreign = sorted(name for name in set(folder_files(out)) - STORE_FILES if not is_shard(name))
        if foreign:
            raise InputError(f"{out} holds '{foreign[0]}', which is no part of prepared data: name another folder.")
        if (out / "manifest.json").exists() and not _is_ours(out / "manifest.json"):
            raise InputError(f"{out}/manifest.json does not describe prepared data: name another folder.")


def _is_ours(manifest: Path) -> bool:
    content = read_json(manifest)
    return isinstance(content, dict) and content.get("stage") == STAGE


def _nothing_read(source: Source, rejections: Rejections) -> str:
    reasons = ", ".join(
        f"{count} by '{reason}'{rejections.example(reason)}" for reason, count in rejections.summary().items()
    )
    return (
        f"The source '{source.name}' holds no usable interaction (rows rejected: {reasons or 'none'}): check its files."
    )


def _count_rejected(log: Log) -> None:
    """Enter the rejected rows as the first removal: what was read, less what is here and what the source dropped."""
    gone = [(r.users, r.items, r.interactions) for r in log.removals]
    lost = np.array(log.read) - np.array([log.counts(), *gone]).sum(0)
    log.removals.insert(0, Removal("rejected rows", *lost.tolist()))


def _ranks(ids: pa.Array, used: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The used ids in ascending order of their bytes, and the new index of each old code (-1: unused)."""
    order = pc.array_sort_indices(ids).to_numpy()
    order = order[used[order]]
    index = np.full(len(ids), -1, np.int32)
    index[order] = np.arange(len(order), dtype=np.int32)
    return ids.take(pa.array(order)).to_pylist(), index


def _used(codes: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(codes, minlength=size) > 0


def _compact(log: RawLog, config: PrepareConfig, salt: bytes) -> tuple[InteractionStore, dict[str, pa.Array] | None]:
    """Renumber items by raw id and users by their sequences, split and anonymise the users, build the catalogue."""
    raw_users, user_index = _ranks(log.user_ids, _used(log.users, len(log.user_ids)))
    item_ids, item_index = _ranks(log.item_ids, _used(log.items, len(log.item_ids)))
    users, items = user_index[log.users], item_index[log.items]
    rows = np.argsort(users, kind="stable")
    lengths = np.bincount(users, minlength=len(raw_users))
    split = split_users(
        raw_users, config.evaluation_fraction, config.split_seed, config.validation_fraction, config.validation_seed
    )
    hashed = anonymise(raw_users, salt)
    # The order of the raw ids would undo the digests: whoever has a list of them had only to sort it.
    digests = _digests(log, rows, _offsets(lengths), items, item_ids)
    order = published_order(digests, split, hashed)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = np.argsort(place[users], kind="stable")
    offsets, items = _offsets(lengths[order]), items[rows]
    counted = np.repeat(split[order] != EVALUATION, lengths[order])
    popularity = np.bincount(items[counted], minlength=len(item_ids)).astype(np.int64)
    user_ids = [hashed[user] for user in order]
    store = InteractionStore(
        offsets=offsets,
        items=items,
        timestamps=None if log.times is None else log.times[rows] // MICROSECONDS,
        actions=None if log.actions is None else log.actions[rows],
        user_ids=user_ids,
        split=split[order],
        catalogue=_catalogue(log, item_ids, item_index, popularity, config.max_tokens),
        split_hash=split_hash(digests, split),
        manifest={"evaluation_hash": split_hash(digests, two_sided(split))} if config.validation_fraction else {},
    )
    return store, _truth(log.truth, [raw_users[user] for user in order], user_ids)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _digests(log: RawLog, rows: np.ndarray, offsets: np.ndarray, items: np.ndarray, item_ids: list[str]) -> list[bytes]:
    """A digest of each user's items, times and actions as they will be stored, whatever the numbers of the items."""
    columns = [name_digests(item_ids)[items[rows]]]
    if log.times is not None:
        columns.append(log.times[rows] // MICROSECONDS)
    if log.actions is not None:
        columns.append(name_digests(log.action_names)[log.actions[rows]])
    return sequence_digests(offsets, columns)


def _catalogue(
    log: RawLog, item_ids: list[str], item_index: np.ndarray, popularity: np.ndarray, max_tokens: int
) -> Catalogue:
    old = np.empty(len(item_ids), np.int64)
    kept = np.flatnonzero(item_index >= 0)
    old[item_index[kept]] = kept
    values: dict[str, list[str]] = {name: [] for name in ATTRIBUTES}
    codes = {name: np.full(len(item_ids), -1, np.int32) for name in ATTRIBUTES}
    for name, column in log.attributes.items():
        encoded = pc.dictionary_encode(column.take(pa.array(old)))
        values[name], rank = _ranks(encoded.dictionary, np.ones(len(encoded.dictionary), bool))
        found = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        codes[name] = np.where(found >= 0, np.r_[rank, -1].astype(np.int32)[found], -1).astype(np.int32)
    tokens, vocabulary = build_tokens(values, max_tokens)
    return Catalogue(np.array(item_ids, object), values, codes, popularity, tokens, len(vocabulary), vocabulary)


def _truth(truth: pa.Table | None, raw_users: list[str], hashed: list[str]) -> dict[str, pa.Array] | None:
    """The planted truth of the users that stayed, in the store's order and under their hashed ids."""
    if truth is None:
        return None
    rows = truth.take(pc.index_in(pa.array(raw_users), value_set=one_chunk(truth["user"])))
    columns: dict[str, pa.Array] = {"user_id": pa.array(hashed, pa.string())}
    for name in truth.column_names:
        if name != "user":
            columns[name] = one_chunk(rows[name])
    return columns


def _facts(
    store: InteractionStore, log: RawLog, source: Source, config: PrepareConfig, rejections: Rejections
) -> dict[str, Any]:
    return {
        "source": {"name": source.name, "options": source.options(), "inputs": source.inputs()},
        "config": {name: value for name, value in config.record().items() if name != "salt_file"},
        "notes": source.notes,
        "attributes": list(store.catalogue.attributes()),
        "actions": log.action_names,
        "counts": {"read": dict(zip(COUNTED, log.read, strict=True))} | counts_of_store(store),
        "removals": [asdict(removal) for removal in log.removals],
        "rejected": rejections.summary(),
    }


def describe(store: InteractionStore) -> list[dict[str, Any]]:
    """Rows of the before/after table: the log as read, what each rule removed, the store and its sides.

    Every row has "step", "users", "items", "interactions"; those of the store and its sides also mean, median and
    maximum length.
    Rules that removed nothing are left out. Raises InputError for a store that `prepare` did not write.
    """
    facts = store.manifest
    if "read" not in facts.get("counts", {}):
        raise InputError("The store holds no report of how it was made: describe one that `prepare` wrote.")
    rows = [{"step": "as read", **facts["counts"]["read"]}]
    for removal in facts["removals"]:
        toll = {name: -removal[name] for name in COUNTED}
        if any(toll.values()):
            rows.append({"step": removal["rule"], **toll})
    names = {
        "all": "kept",
        "train": "training users",
        "evaluation": "evaluation users",
        "validation": "validation users",
    }
    return rows + [{"step": names[name], **facts["counts"][name]} for name in names if name in facts["counts"]]
