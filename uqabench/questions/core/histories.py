"""Counting within a history, and choosing where histories end."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.rng import below, keyed_state


@inner
def gather(table, items):
    """Codes int32 of items, of one attribute's row of `Context.codes`."""
    out = np.empty(len(items), np.int32)
    for i in range(len(items)):
        out[i] = table[items[i]]
    return out


@inner
def tally(codes):
    """(distinct codes ascending, their counts int64); -1 is left out."""
    ordered = np.sort(codes)
    values = np.empty(len(ordered), np.int32)
    counts = np.zeros(len(ordered), np.int64)
    size = 0
    for code in ordered:
        if code < 0:
            continue
        if size == 0 or values[size - 1] != code:
            values[size] = code
            size += 1
        counts[size - 1] += 1
    return values[:size], counts[:size]


@inner
def count_of(values, counts, code):
    """How often `code` occurs, by the result of `tally`."""
    i = np.searchsorted(values, code)
    if i < len(values) and values[i] == code:
        return counts[i]
    return 0


@inner
def dominant(codes):
    """The most frequent code; -1 without any, -2 when several are."""
    values, counts = tally(codes)
    best, second = -1, 0
    code = -1
    for i in range(len(values)):
        if counts[i] > best:
            best, second, code = counts[i], best, values[i]
        elif counts[i] > second:
            second = counts[i]
    if len(values) == 0:
        return np.int32(-1)
    if second == best:
        return np.int32(-2)
    return np.int32(code)


@inner
def basket_ends(starts):
    """Indices of a history at which a basket has just ended; the end of the history, always one of them, is last."""
    out = np.empty(len(starts), np.int64)
    size = 0
    for e in range(1, len(starts)):
        if starts[e]:
            out[size] = e
            size += 1
    out[size] = len(starts)
    return out[: size + 1]


@inner
def choose_cuts(starts, offsets, users, min_history, per_user, seed, salt):
    """See `entries.choose_cuts`."""
    out = np.full((len(users), per_user), -1, np.int32)
    for i in range(len(users)):
        user = users[i]
        first, length = offsets[user], offsets[user + 1] - offsets[user]
        positions = np.empty(max(0, length - min_history), np.int32)
        size = 0
        for cut in range(min_history, length):
            if starts[first + cut]:
                positions[size] = cut
                size += 1
        state = keyed_state(seed, salt, user, 0, 0)
        used = min(size, per_user)
        for j in range(used):
            lo, hi = j * size // used, (j + 1) * size // used
            out[i, j] = positions[lo + below(state, hi - lo)]
    return out


@inner
def count_next_items(items, starts, offsets, users, min_history, n_items):
    """See `entries.count_next_items`."""
    out = np.zeros(n_items, np.int64)
    for user in users:
        for row in range(offsets[user] + min_history, offsets[user + 1]):
            if starts[row]:
                out[items[row]] += 1
    return out
