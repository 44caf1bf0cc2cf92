"""Which interactions stay: exclusions, length rules to a fixed point, time order, the last N of each user."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.log import Log, Removal
from uqabench.data.rows import Rows
from uqabench.data.sources.columns import as_ids
from uqabench.errors import InputError
from uqabench.settings.data import PrepareConfig

_NO_BOUND = 2**62
"""No user has so many interactions."""


def exclude(log: Log, config: PrepareConfig) -> None:
    """Drop sensitive items by id and by category, in place."""
    if config.exclude_items:
        named = as_ids(pa.array(sorted(set(config.exclude_items)), pa.large_string()), "exclude_items")
        known = pc.is_in(log.item_ids, value_set=named.cast(pa.string()))
        log.drop_items(_flags(known), "items excluded by id")
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
        log.drop_items(_flags(pc.is_in(category, value_set=dropped)), "categories excluded by name")
    _stop_if_empty(log)


def filter_log(log: Log, config: PrepareConfig) -> None:
    """Sort by (user, time, row), apply the length rules to a fixed point and cut to the last N, in place."""
    bounds = ("min_item_interactions", "min_user_length", "max_user_length", "max_sequence")
    log.filter(lambda rows: fixed_point(rows, **{name: getattr(config, name) for name in bounds}))
    _stop_if_empty(log)


def fixed_point(
    rows: Rows, *, min_item_interactions: int, min_user_length: int, max_user_length: int, max_sequence: int
) -> list[Removal]:
    """Repeat (rare items go, then short users, then long users) until a whole round changes nothing; then cut.

    An item's interactions are counted within the last `max_sequence` of each user, which is what will be stored: so
    in the store itself no item is rarer than the rule says, and a user whose rare items went is filled up with older
    interactions. Users are measured before the cut. Because a removed item can bring a long user below the bound, the
    order of the rules is part of the definition. Returns one Removal a rule, summed over all rounds.
    """
    rules = (
        f"items with fewer than {min_item_interactions} interactions",
        f"users with fewer than {min_user_length} interactions",
        f"users with more than {max_user_length} interactions",
        f"older than a user's last {max_sequence} interactions",
    )
    tolls = np.zeros((len(rules), 3), np.int64)
    left = rows.counts()

    def account(rule: int, changed: bool) -> bool:
        nonlocal left
        if changed:
            before, left = left, rows.counts()
            tolls[rule] += np.subtract(before, left)
        return changed

    changed = True
    while changed and left[2]:
        changed = account(0, rows.drop_rare_items(min_item_interactions, max_sequence))
        changed |= account(1, rows.drop_users(min_user_length, _NO_BOUND))
        changed |= account(2, rows.drop_users(0, max_user_length))
    account(3, rows.cut(max_sequence))
    return [Removal(name, *toll) for name, toll in zip(rules, tolls.tolist(), strict=True)]


def _flags(mask: pa.Array) -> np.ndarray:
    return mask.to_numpy(zero_copy_only=False).astype(bool)


def _stop_if_empty(log: Log) -> None:
    if len(log):
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
