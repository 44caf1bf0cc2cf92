"""Which interactions stay: exclusions, length rules to a fixed point, time order, the last N of each user."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.log import RawLog, Removal, counts
from uqabench.data.sources.columns import as_ids
from uqabench.errors import InputError
from uqabench.settings.data import PrepareConfig


def exclude(log: RawLog, config: PrepareConfig) -> None:
    """Drop sensitive items by id and by category, in place."""
    if config.exclude_items:
        named = as_ids(pa.array(sorted(set(config.exclude_items)), pa.large_string()), "exclude_items")
        known = pc.is_in(log.item_ids, value_set=named.cast(pa.string()))
        log.drop(_flags(known)[log.items], "items excluded by id")
    if config.exclude_categories:
        category = log.attributes.get("category")
        if category is None:
            raise InputError("exclude_categories is set, but the items have no category: leave it out.")
        wanted = sorted({name.strip().casefold() for name in config.exclude_categories})
        distinct = [name for name in pc.unique(category).to_pylist() if name is not None]
        folded = {name: name.strip().casefold() for name in distinct}
        unknown = [name for name in wanted if name not in folded.values()]
        if unknown:
            near = get_close_matches(unknown[0], sorted(folded.values()), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "compare the names in the items table."
            raise InputError(f"There is no category '{unknown[0]}' to exclude: {hint}")
        dropped = pa.array([name for name in distinct if folded[name] in wanted], pa.string())
        log.drop(_flags(pc.is_in(category, value_set=dropped))[log.items], "categories excluded by name")
    _stop_if_empty(log)


def filter_log(log: RawLog, config: PrepareConfig) -> None:
    """Sort by (user, time, row), apply the length rules to a fixed point and cut to the last N, in place."""
    order = np.argsort(log.users, kind="stable") if log.times is None else np.lexsort((log.times, log.users))
    log.select(order)
    keep, removals = fixed_point(
        log.users,
        log.items,
        min_item_interactions=config.min_item_interactions,
        min_user_length=config.min_user_length,
        max_user_length=config.max_user_length,
        max_sequence=config.max_sequence,
    )
    log.select(keep)
    log.removals += removals
    _stop_if_empty(log)


def fixed_point(
    users: np.ndarray,
    items: np.ndarray,
    *,
    min_item_interactions: int,
    min_user_length: int,
    max_user_length: int,
    max_sequence: int,
) -> tuple[np.ndarray, list[Removal]]:
    """Repeat (rare items go, then short users, then long users) until a whole round changes nothing; then cut.

    users, items: int (R,) codes, rows sorted by user and time. An item's interactions are counted within the last
    `max_sequence` of each user, which is what will be stored: so in the store itself no item is rarer than the rule
    says, and a user whose rare items went is filled up with older interactions. Users are measured before the cut.
    Because a removed item can bring a long user below the bound, the order of the rules is part of the definition.
    Returns (indices int64 of the rows that stay, one Removal a rule summed over all rounds).
    """
    names = (
        f"items with fewer than {min_item_interactions} interactions",
        f"users with fewer than {min_user_length} interactions",
        f"users with more than {max_user_length} interactions",
        f"older than a user's last {max_sequence} interactions",
    )
    tolls = np.zeros((len(names), 3), np.int64)
    keep = np.arange(len(users), dtype=np.int64)

    def drop(rule: int, stays: np.ndarray) -> bool:
        nonlocal keep
        if stays.all():
            return False
        before = counts(users[keep], items[keep])
        keep = keep[stays]
        tolls[rule] += np.subtract(before, counts(users[keep], items[keep]))
        return True

    changed = True
    while changed and len(keep):
        recent = items[keep][from_end(users[keep]) < max_sequence]
        rare = np.bincount(recent, minlength=int(items.max()) + 1) < min_item_interactions
        changed = drop(0, ~rare[items[keep]])
        for rule, least, most in ((1, min_user_length, np.inf), (2, 0, max_user_length)):
            lengths = np.bincount(users[keep]) if len(keep) else np.zeros(0)
            changed |= drop(rule, ((lengths >= least) & (lengths <= most))[users[keep]])
    drop(3, from_end(users[keep]) < max_sequence)
    return keep, [Removal(name, *toll) for name, toll in zip(names, tolls.tolist(), strict=True)]


def from_end(users: np.ndarray) -> np.ndarray:
    """int64 (R,): how many rows of the same user follow each row, for users in sorted order."""
    ends = np.flatnonzero(np.r_[users[1:] != users[:-1], True]) if len(users) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[-1, ends])
    return np.repeat(ends, lengths) - np.arange(len(users))


def _flags(mask: pa.Array) -> np.ndarray:
    return mask.to_numpy(zero_copy_only=False).astype(bool)


def _stop_if_empty(log: RawLog) -> None:
    if len(log.users):
        return
    costly = max(log.removals, key=lambda removal: removal.interactions, default=None)
    last = next((removal for removal in reversed(log.removals) if removal.interactions), None)
    if last is None or costly is None:
        raise InputError("The log holds no usable interaction: check the input files and the rejected rows.")
    raise InputError(
        f"No interaction is left: the rule '{last.rule}' removed the last {last.interactions} "
        f"(the most, {costly.interactions}, went by '{costly.rule}'); loosen that setting or add data."
    )


def read_ids(path: Path | str) -> list[str]:
    """One id a line, blank lines skipped; InputError names an unreadable file."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:  # a decoding error quotes the file
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise InputError(f"The list {path} cannot be read as UTF-8 text{reason}: name a readable file.") from error
    return [line.strip() for line in lines if line.strip()]
