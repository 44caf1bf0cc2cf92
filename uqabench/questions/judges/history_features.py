"""What a history says about options, as counts, places and what training users take after such a history.

The compiled functions stand in this one file, so that numba notices every change of what it keeps on disk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.data.jit import jit
from uqabench.data.store import InteractionStore
from uqabench.questions.declaration import ASKED, OPTIONS
from uqabench.questions.judges.option_features import IS_COUNT, Features, ValueFacts, title_relatives
from uqabench.questions.judges.transitions import count_transitions
from uqabench.questions.questions import QuestionSet
from uqabench.questions.tables import basket_starts
from uqabench.vocabulary import SUBTASKS, TASKS

WINDOWS = (1, 2, 4, 8, 16, 32, 64)
COUNTED = (
    *(f"in last {window}" for window in WINDOWS), "in all", "share", "in last basket", "in first half",
    "in second half", "in recent window", "since last", "baskets", "baskets since", "gaps since",
)  # fmt: skip
"""Of an option's values in sum (lists) or alone; "gaps since": baskets since the last one, in mean gaps between."""
PLACED = (
    "rank", "order", "recent rank", "first third", "middle third", "last third", "at place", "at place from end",
    "list from end", "in basket from end", "distance to count", "distance to length",
)  # fmt: skip
"""Ranks of the values' counts (lists: how far from the ranks listed); an option as what stands at asked places."""
FOLLOWING = ("after last basket", "after history", "lift after history")
NAMES = (*COUNTED, *PLACED, *FOLLOWING)


class _Log(NamedTuple):
    """What of the log the compiled code reads, for one attribute."""

    items: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray


class _Asked(NamedTuple):
    """Columns of the questions that the compiled code reads."""

    user: np.ndarray
    cut: np.ndarray
    parameter: np.ndarray
    is_count: np.ndarray
    is_next: np.ndarray
    values: np.ndarray
    lengths: np.ndarray


def history_features(questions: QuestionSet, store: InteractionStore, facts: ValueFacts) -> Features:
    """Features (Q, 4) of options and history; what training users take next is counted without the user asked about."""
    out = np.full((len(questions), OPTIONS, len(NAMES)), np.nan)
    starts = basket_starts(store)
    related: dict[str, np.ndarray] = {}
    next_item = np.isin(questions.subtask, [SUBTASKS.index(name) for name in TASKS["action_prediction"]])
    for attribute in (-1, *range(len(ASKED))):
        rows = np.flatnonzero(questions.attribute == attribute)
        if not len(rows):
            continue
        codes = facts.codes[attribute] if attribute >= 0 else np.full(len(store.catalogue), -1, np.int32)
        log = _Log(store.items, starts, store.offsets, codes)
        transitions = count_transitions(store, codes, starts)
        part = np.empty((len(rows), OPTIONS, len(NAMES)))
        _fill(log, transitions, _columns(questions, rows, next_item), questions.n_history, np.array(WINDOWS), part)
        out[rows] = part
        if attribute == 0:
            related = _related(questions, rows, log, facts)
    features = {name: out[:, :, index] for index, name in enumerate(NAMES)}
    length = np.minimum(questions.cut, questions.n_history).astype(float)
    return features | related | {"history length": np.repeat(length[:, None], OPTIONS, axis=1)}


def _columns(questions: QuestionSet, rows: np.ndarray, next_item: np.ndarray) -> _Asked:
    return _Asked(
        questions.user[rows].astype(np.int64),
        questions.cut[rows].astype(np.int64),
        questions.params[rows, 0].astype(np.int64),
        IS_COUNT[questions.kind[rows]],
        next_item[rows],
        np.ascontiguousarray(questions.option_values[rows], np.int32),
        questions.option_lengths[rows].astype(np.int64),
    )


def _related(questions: QuestionSet, rows: np.ndarray, log: _Log, facts: ValueFacts) -> Features:
    """Counts in the history of a title's category, brand and shop: of all items, the last 16, and the last basket."""
    relatives = title_relatives(facts.codes)
    titles = np.where(questions.option_values[rows, :, 0] < relatives.shape[1], questions.option_values[rows, :, 0], 0)
    user, cut = questions.user[rows].astype(np.int64), questions.cut[rows].astype(np.int64)
    features = {}
    for row, name in enumerate(ASKED[1:]):
        counts = np.zeros((len(rows), OPTIONS, 3))
        own = log._replace(codes=facts.codes[row + 1])
        wanted = np.ascontiguousarray(relatives[row][np.maximum(titles, 0)])
        _count_related(own, user, cut, questions.n_history, wanted, counts)
        for index, window in enumerate(("all", "last 16", "last basket")):
            column = np.full((len(questions), OPTIONS), np.nan)
            column[rows] = counts[:, :, index]
            features[f"{name} in {window}"] = column
    return features


@jit
def _count_related(log, user, cut, n_history, wanted, out):
    """Write counts (n, 4, 3) of the codes `wanted` (n, 4)."""
    for i in range(len(user)):
        hi = log.offsets[user[i]] + cut[i]
        lo = hi - min(cut[i], n_history)
        basket = hi - 1
        while basket > lo and not log.starts[basket]:
            basket -= 1
        for option in range(wanted.shape[1]):
            if wanted[i, option] < 0:
                continue
            for row in range(lo, hi):
                if log.codes[log.items[row]] == wanted[i, option]:
                    out[i, option, 0] += 1
                    out[i, option, 1] += row >= hi - 16
                    out[i, option, 2] += row >= basket


@jit
def _fill(log, transitions, asked, n_history, windows, out):  # noqa: C901
    """Write out float64 (n, 4, len(NAMES)); a loop over questions without shared state."""

    def count(codes, value, begin, end):
        found = 0
        for place in range(max(begin, 0), min(end, len(codes))):
            found += codes[place] == value
        return found

    def greater(values, counts, than):
        found = 0
        for index in range(len(values)):
            found += counts[index] > than
        return found

    def tally(codes):
        ordered = np.sort(codes)
        values, counts = np.empty(len(ordered), np.int32), np.zeros(len(ordered), np.int64)
        size = 0
        for code in ordered:
            if code >= 0:
                if size == 0 or values[size - 1] != code:
                    values[size] = code
                    size += 1
                counts[size - 1] += 1
        return values[:size], counts[:size]

    n_windows = len(windows)
    placed = n_windows + 10
    for i in range(len(asked.user)):
        hi = log.offsets[asked.user[i]] + asked.cut[i]
        size = min(asked.cut[i], n_history)
        lo = hi - size
        codes = np.empty(size, np.int32)
        for place in range(size):
            codes[place] = log.codes[log.items[lo + place]]
        basket = np.zeros(size, np.int64)
        for place in range(1, size):
            basket[place] = basket[place - 1] + log.starts[lo + place]
        n_baskets = basket[size - 1] + 1
        bounds = np.zeros(n_baskets + 1, np.int64)
        for place in range(size):
            bounds[basket[place] + 1] = place + 1
        parameter = asked.parameter[i]
        recent = size - max(1, min(parameter, size))
        thirds = np.zeros(4, np.int64)
        thirds[3] = size
        for third in (1, 2):
            nearest = 0
            for bound in bounds:
                if abs(3 * bound - third * size) < abs(3 * nearest - third * size):
                    nearest = bound
            thirds[third] = nearest
        values, counts = tally(codes)
        _, recent_counts = tally(codes[recent:])
        most = np.ones(3)
        for third in range(3):
            _, of_third = tally(codes[thirds[third] : thirds[third + 1]])
            if len(of_third):
                most[third] = of_third.max()
        for option in range(asked.values.shape[1]):
            f = out[i, option]
            f[:] = np.nan
            listed = asked.values[i, option, : asked.lengths[i, option]]
            if asked.is_count[i]:
                number = listed[0]
                f[placed + 10] = abs(number - count(codes, parameter, 0, size))
                f[placed + 11] = abs(number - size)
                continue
            f[: n_windows + 6] = 0
            since = float(size)
            for value in listed:
                for w in range(n_windows):
                    f[w] += count(codes, value, size - windows[w], size)
                f[n_windows] += count(codes, value, 0, size)
                f[n_windows + 2] += count(codes, value, bounds[n_baskets - 1], size)
                f[n_windows + 3] += count(codes, value, 0, size // 2)
                f[n_windows + 4] += count(codes, value, size // 2, size)
                f[n_windows + 5] += count(codes, value, recent, size)
                for back in range(size):
                    if codes[size - 1 - back] == value:
                        since = min(since, back)
                        break
            f[n_windows + 1] = f[n_windows] / size
            f[n_windows + 6] = since
            having, first, last, previous = 0, -1, -1, -1
            for place in range(size):
                if codes[place] == listed[0] and basket[place] != previous:
                    previous = basket[place]
                    having += 1
                    first = previous if first < 0 else first
                    last = previous
            f[n_windows + 7] = having
            if having:
                f[n_windows + 8] = n_baskets - 1 - last
                if having > 1:
                    f[n_windows + 9] = (n_baskets - last) * (having - 1) / (last - first)
            n = len(listed)
            off, falling = 0.0, 1.0
            for j in range(n):
                own = count(codes, listed[j], 0, size)
                off = max(off, abs(greater(values, counts, own) - j))
                if j and own >= count(codes, listed[j - 1], 0, size):
                    falling = 0.0
            f[placed] = off
            f[placed + 1] = falling
            f[placed + 2] = greater(recent_counts, recent_counts, count(codes, listed[0], recent, size))
            f[placed + 3] = count(codes, listed[0], 0, thirds[1]) / most[0]
            best = 0
            for value in listed:
                best = max(best, count(codes, value, thirds[1], thirds[2]))
            if n == 3:
                best = count(codes, listed[1], thirds[1], thirds[2])
            f[placed + 4] = best / most[1]
            f[placed + 5] = count(codes, listed[n - 1], thirds[2], size) / most[2]
            if 1 <= parameter <= size:
                f[placed + 6] = codes[parameter - 1] == listed[0]
                f[placed + 7] = codes[size - parameter] == listed[0]
            same = 0
            for j in range(min(n, size)):
                same += codes[size - n + j] == listed[j]
            f[placed + 8] = same / n
            if 1 <= parameter <= n_baskets:
                begin, end = bounds[n_baskets - parameter], bounds[n_baskets - parameter + 1]
                f[placed + 9] = count(codes, listed[0], begin, end) / (end - begin)
        if not asked.is_next[i]:
            continue
        # What training users took after such baskets, the user asked about left out.
        recent_values, _ = tally(codes[bounds[n_baskets - 1] :])
        n_options = asked.values.shape[1]
        own = np.zeros((len(values), n_options))
        own_sources = np.zeros(len(values))
        user = asked.user[i]
        if transitions.counted[user]:
            for b in range(transitions.user_baskets[user], transitions.user_baskets[user + 1] - 1):
                source = transitions.basket_values[transitions.basket_bounds[b] : transitions.basket_bounds[b + 1]]
                target = transitions.basket_values[transitions.basket_bounds[b + 1] : transitions.basket_bounds[b + 2]]
                for value in source:
                    at = np.searchsorted(values, value)
                    if at < len(values) and values[at] == value:
                        own_sources[at] += 1
                for option in range(n_options):
                    at = np.searchsorted(target, asked.values[i, option, 0])
                    if at < len(target) and target[at] == asked.values[i, option, 0]:
                        for value in source:
                            at = np.searchsorted(values, value)
                            if at < len(values) and values[at] == value:
                                own[at, option] += 1
        for option in range(n_options):
            wanted = asked.values[i, option, 0]
            after_last = after_all = 0.0
            for index in range(len(values)):
                value = values[index]
                sources = transitions.sources[value] - own_sources[index]
                if sources <= 0:
                    continue
                begin, end = transitions.indptr[value], transitions.indptr[value + 1]
                at = begin + np.searchsorted(transitions.indices[begin:end], wanted)
                found = transitions.counts[at] if at < end and transitions.indices[at] == wanted else 0
                share = (found - own[index, option]) / (sources + 5.0)
                after_all += share
                at = np.searchsorted(recent_values, value)
                if at < len(recent_values) and recent_values[at] == value:
                    after_last += share
            out[i, option, placed + 12] = after_last / max(1, len(recent_values))
            out[i, option, placed + 13] = after_all / max(1, len(values))
            marginal = (transitions.targets[wanted] + 1.0) / (transitions.pairs + 1.0)
            out[i, option, placed + 14] = after_all / max(1, len(values)) / marginal
