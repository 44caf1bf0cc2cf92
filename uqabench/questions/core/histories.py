"""Counting within a history, and choosing where histories end."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.rng import below, keyed_state


@inner
def gather(codes, attribute, items):
    """Codes int32 of items, of one attribute's column of `Context.codes`."""
    out = np.empty(len(items), np.int32)
    for i in range(len(items)):
        out[i] = codes[items[i], attribute]
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
def occurrences(codes, code):
    """How often `code` is among the codes."""
    found = 0
    for other in codes:
        found += other == code
    return found


@inner
def count_codes(codes, tallies):
    """(distinct codes in the order in which they first occur, their counts int64); -1 is left out.

    tallies: int32, with a place for each code and one more, all zero before and after. One place for each code, counted
    without a branch, takes a third of the time of a hash table, where the processor has to guess which codes are new.
    """
    values = np.empty(len(codes) + 1, np.int32)
    none = len(tallies) - 1
    size = 0
    for code in codes:
        place = code if code >= 0 else none
        before = tallies[place]
        tallies[place] = before + 1
        values[size] = code
        size += (before == 0) & (code >= 0)
    tallies[none] = 0
    counts = np.empty(size, np.int64)
    for i in range(size):
        counts[i] = tallies[values[i]]
        tallies[values[i]] = 0
    return values[:size], counts


@inner
def holds(codes, code):
    """Whether `code` is one of the codes."""
    for other in codes:
        if other == code:
            return True
    return False


@inner
def dominant(codes, tallies):
    """The most frequent code; -1 without any, -2 when several are. tallies: see `count_codes`."""
    values, counts = count_codes(codes, tallies)
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
def basket_bounds(starts):
    """Indices at which the baskets of a history begin, its own start first, and its end."""
    out = np.empty(len(starts) + 1, np.int64)
    out[0] = 0
    size = 1
    for p in range(1, len(starts)):
        if starts[p]:
            out[size] = p
            size += 1
    out[size] = len(starts)
    return out[: size + 1]


@inner
def basket_end(starts, row, end):
    """The row after the last one of the basket that begins at `row`, in a sequence that ends at `end`."""
    after = row + 1
    while after < end and not starts[after]:
        after += 1
    return after


@inner
def same_in_any_order(codes, starts):
    """bool: for each item of a history, whether all items of its basket have its code, so that their order says nothing
    about which code is where."""
    out = np.ones(len(codes), np.bool_)
    bounds = basket_bounds(starts)
    for b in range(len(bounds) - 1):
        for p in range(bounds[b] + 1, bounds[b + 1]):
            if codes[p] != codes[bounds[b]]:
                out[bounds[b] : bounds[b + 1]] = False
                break
    return out


@inner
def recent_size(starts, window, by_basket):
    """How many items at the end of a history are recent: `window`, or the fewest whole baskets that hold as many."""
    size = min(window, len(starts))
    if by_basket:
        while size < len(starts) and not starts[len(starts) - size]:
            size += 1
    return size


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
def count_next_items(items, starts, offsets, users, min_history, n_items, by_basket):
    """See `entries.count_next_items`."""
    out = np.zeros(n_items, np.int64)
    for user in users:
        is_next = False
        for row in range(offsets[user] + min_history, offsets[user + 1]):
            is_next = starts[row] or (is_next and by_basket)
            if is_next:
                out[items[row]] += 1
    return out
