"""Questions from interaction sequences: all sub-tasks, without leaks, ties or short cuts."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.questions.core.context import Context
from uqabench.questions.core.entries import choose_cuts
from uqabench.questions.declaration import ASKED, Family
from uqabench.questions.kinds import KIND_INDEX, families, kinds, pooled
from uqabench.questions.pools import build_pools, empty_pools, with_popularity
from uqabench.questions.questions import QuestionSet
from uqabench.questions.report import QuestionReport
from uqabench.questions.selection import Selection
from uqabench.questions.tables import basket_starts, build_values, equal_texts, find_cuts, no_cuts, no_values
from uqabench.settings.questions import QuestionConfig
from uqabench.vocabulary import SUBTASKS

DOMAIN_OF_SOURCE = {"completejourney": "purchase", "movielens-100k": "watch"}

_CUT_SALT, _ORDER_SALT, _EXTRA_SALT = 11, 12, 13


def generate(
    store: InteractionStore, split: str, config: QuestionConfig, *, threads: int | None = None
) -> tuple[QuestionSet, QuestionReport]:
    """Ask questions about the users of `split` ("train", "evaluation" or "validation").

    Whatever wrong options are matched with or drawn from (popularity, what comes next, right answers of others) is
    taken from training users; where the questions are about evaluation users, validation users are among them. The
    result depends on store, split and config only; `threads` (default: numba's setting) changes the time alone.
    Questions are sorted by user and cut.

    Raises InputError when no question at all is possible, or when a sub-task cannot reach the count that `config.mix`
    demands. Counts of the default mix that cannot be reached are lowered, and `QuestionReport.notes` says so.
    """
    store = store.about(split)
    threads = threads or numba.get_num_threads()
    context = build_context(store, config, threads)
    possible = tuple(name for name in SUBTASKS if _askable(name, config.version, context))
    counts = config.counts(possible)
    everybody = store.users(split)
    if split == "validation" and len(everybody) == 0:
        raise InputError("The data has no validation users: set data.prepare.validation_fraction above 0.")
    cuts = _cuts(context, everybody, config)
    users, cuts = everybody[cuts[:, 0] >= 0], cuts[cuts[:, 0] >= 0]
    order = np.random.Generator(np.random.Philox(key=[config.seed, _ORDER_SALT])).permutation(len(users))
    report = QuestionReport(wanted=counts, left_out=[name for name in config.weights if name not in possible])
    if report.left_out:
        report.notes.append(
            f"The data set lacks the attributes for {', '.join(report.left_out)}: the others share out the questions."
        )
    chosen: list[Selection] = []
    users, cuts = users[order], cuts[order]
    for name, own in _selected(context, counts, users, cuts, config, threads).items():
        count = counts[name]
        _enter(report, name, own)
        if report.counts[name] < count:
            whom = _whom(store, everybody, len(users), split, config)
            report.notes.append(_shortage(report, name, own, whom, demanded=config.mix is not None))
        if report.unbalanced[name]:
            report.notes.append(
                f"Sub-task {name}: {report.unbalanced[name]} of {report.counts[name]} questions were taken out of "
                "balance, for want of others."
            )
        chosen += own
    if not any(report.counts.values()):
        raise InputError(f"No question is possible. {report.notes[-1]}")
    questions = _collect(chosen, store, split, config)
    another_user = np.diff(questions.user) != 0  # questions are sorted by user and cut
    report.users = 1 + int(another_user.sum())
    report.histories = 1 + int((another_user | (np.diff(questions.cut) != 0)).sum())
    return questions, report


def _selected(
    context: Context, counts: dict[str, int], users: np.ndarray, cuts: np.ndarray, config: QuestionConfig, threads: int
) -> dict[str, list[Selection]]:
    """The questions by sub-task. Sub-tasks come one after the other, as whose turn is first in one is where the last
    ended; meanwhile another thread looks for the right answers of those to come."""
    selections = {
        name: [
            Selection(context, family, users, cuts, config, part)
            for family, part in _shared_out(count, families(config.version, name), config.matched_share)
        ]
        for name, count in counts.items()
    }
    start = 0
    with ThreadPoolExecutor(1) as beside:
        flat = [selection for own in selections.values() for selection in own]
        ahead = {each: beside.submit(each.look_ahead) for each in flat if threads > 1 and each.asks_most}
        for selection in flat:
            if selection in ahead:
                ahead[selection].result()
            if len(users):
                start = selection.run(start)  # whoever missed the final turn is first in the next one
    return selections


def _cuts(context: Context, users: np.ndarray, config: QuestionConfig) -> np.ndarray:
    """int32 (users, cuts_per_user + extra_cuts): the main cuts, then others; -1 where a user has no more."""
    where = (context.starts, context.offsets, users, config.min_history)
    main = choose_cuts(*where, config.cuts_per_user, context.seed, _CUT_SALT)
    if config.extra_cuts == 0:
        return main
    extra = choose_cuts(*where, config.extra_cuts, context.seed, _EXTRA_SALT)
    extra[(extra[:, :, None] == main[:, None, :]).any(axis=2)] = -1
    if config.version != "v1":  # in order of time, the first ones opened would all be about early histories
        extra = np.random.Generator(np.random.Philox(key=[config.seed, _EXTRA_SALT])).permuted(extra, axis=1)
    first = np.argsort(extra < 0, axis=1, kind="stable")
    return np.concatenate([main, np.take_along_axis(extra, first, axis=1)], axis=1)


def build_context(store: InteractionStore, config: QuestionConfig, threads: int = 1) -> Context:
    """All that the compiled code reads; learned from training users only."""
    store.check_items()
    by_basket = config.version != "v1"
    with ThreadPoolExecutor(threads) as executor:
        codes, starts = equal_texts(store.catalogue, executor), basket_starts(store)
        # The longest of what is left goes on beside the pools, which do not need it.
        values = executor.submit(build_values, store, codes, starts, config.min_history, by_basket)
        cuts = executor.submit(find_cuts, store, starts, config.min_history) if by_basket else None
        present = [row for row in range(len(ASKED)) if (codes[row] >= 0).any()]
        context = Context(
            items=store.items,
            starts=starts,
            offsets=store.offsets,
            codes=codes.T,
            asked=np.array(present, np.int64),
            side=np.array([row for row in present if row > 0], np.int64),
            **no_values()._asdict(),
            **empty_pools(len(pooled(config.version)))._asdict(),
            **no_cuts()._asdict(),
            by_basket=by_basket,
            n_history=config.history,
            window=config.recent_window,
            min_history=config.min_history,
            seed=np.uint64(config.seed),
        )
        pools = build_pools(_frozen(context), store.users("train"), config.version, config.cuts_per_user, executor)
        facts = [values.result(), with_popularity(pools, values.result()), *([cuts.result()] if cuts else [])]
    return _frozen(context._replace(**{name: array for each in facts for name, array in each._asdict().items()}))


def _frozen(context: Context) -> Context:
    """Read-only contiguous arrays: memory-mapped columns are, and one array type means one compilation."""

    def freeze(array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array).view()
        array.flags.writeable = False
        return array

    return Context(*(freeze(value) if isinstance(value, np.ndarray) else value for value in context))


def _askable(subtask: str, version: str, context: Context) -> bool:
    present = {ASKED[row] for row in context.asked}
    own = [kind for kind in kinds(version) if kind.subtask == subtask]
    return any(not kind.attributes or present & set(kind.attributes) for kind in own)


def _shared_out(count: int, own: list[Family], matched_share: float) -> list[tuple[Family, int]]:
    """A sub-task's count by family, to the exact total: in equal parts, where there are levels by `matched_share`."""
    matched = round(1000 * matched_share)
    shares = {"natural": 1000 - matched, "matched": matched}
    parts = [0, *(shares.get(family.kinds[0].level, 1000) for family in own)]
    bounds = np.cumsum(parts) * count // sum(parts)
    return [(family, int(part)) for family, part in zip(own, np.diff(bounds), strict=True) if part]


def _shortage(report: QuestionReport, name: str, own: list[Selection], whom: str, *, demanded: bool) -> str:
    """That a sub-task did not reach its count, and why. InputError where the count is a demand, unless it was the
    balance that took the questions."""
    wanted, made = report.wanted[name], report.counts[name]
    dropped = sum(selection.out_of_balance() for selection in own if selection.strict)
    start = f"Sub-task {name}: {wanted} questions wanted, {made} "
    unequal = "with them the most frequent option would be right too often or too seldom"
    if made and dropped >= wanted - made:
        return f"{start}made, and the others left out: {unequal}."
    reasons = ", ".join(f"{reason} {n}" for reason, n in report.discarded[name].items())
    text = f"{start}possible from {whom}" + (f" (candidates discarded: {reasons})" if reasons else "")
    text += f", and {dropped} left out: {unequal}" if dropped else ""
    if demanded:
        raise InputError(f"{text}: lower its count in mix, or raise cuts_per_user.")
    return f"{text}."


def _whom(store: InteractionStore, users: np.ndarray, usable: int, split: str, config: QuestionConfig) -> str:
    """How many of the users can be asked about, and what keeps the others from it."""
    too_short = store.lengths[users] <= config.min_history
    long_enough = users[~too_short].tolist()
    one_basket = sum(int(store.basket_starts(user).sum()) == 1 for user in long_enough)
    reasons = {
        f"have no more than min_history ({config.min_history}) interactions": len(users) - len(long_enough),
        "have one timestamp for all interactions: one basket, so that nothing comes next": one_basket,
        "have no basket that begins after min_history interactions": len(long_enough) - one_basket - usable,
    }
    others = "; ".join(f"{n} {reason}" for reason, n in reasons.items() if n)
    return f"{usable} of {len(users)} {split} users" + (f" ({others})" if others else "")


def _enter(report: QuestionReport, name: str, own: list[Selection]) -> None:
    """What the selections of one sub-task came to."""
    report.counts[name] = sum(len(selection) for selection in own)
    report.candidates[name] = sum(selection.candidates for selection in own)
    report.discarded[name] = dict(sum((Counter(selection.discarded()) for selection in own), Counter()))
    report.unbalanced[name] = sum(selection.loose for selection in own)
    rows = np.concatenate([selection.records.attribute for selection in own])
    names = {-1: "none", **dict(enumerate(ASKED))}
    counts = {row: int(np.count_nonzero(rows == row)) for row in (*range(len(ASKED)), -1)}
    report.attributes[name] = {names[row]: count for row, count in counts.items() if count}
    for selection in own:
        for kind, of in selection.by_kind().items():
            report.kinds[kind] = report.kinds.get(kind, 0) + of


def _collect(chosen: list[Selection], store: InteractionStore, split: str, config: QuestionConfig) -> QuestionSet:
    """The candidates taken, as columns sorted by (user, cut, sub-task, kind, attribute, parameters)."""

    def column(name: str, kind: type) -> np.ndarray:
        return np.concatenate([getattr(selection.records, name) for selection in chosen]).astype(kind)

    def kinds_of(selection: Selection) -> np.ndarray:
        return np.array([KIND_INDEX[kind.name] for kind in selection.family.kinds], np.int16)[selection.records.kind]

    def each(values: list[int]) -> np.ndarray:
        return np.repeat(values, [len(selection) for selection in chosen])

    questions = QuestionSet(
        user=np.concatenate([selection.user for selection in chosen]).astype(np.int32),
        cut=np.concatenate([selection.cut for selection in chosen]).astype(np.int32),
        subtask=each([SUBTASKS.index(selection.family.subtask) for selection in chosen]).astype(np.int8),
        kind=np.concatenate([kinds_of(selection) for selection in chosen]),
        template=column("template", np.int16),
        attribute=column("attribute", np.int8),
        params=column("params", np.int32),
        option_values=column("values", np.int32),
        option_lengths=column("lengths", np.int8),
        answer=column("answer", np.int8),
        n_history=config.history,
        split=split,
        split_hash=store.split_hash,
        version=config.version,
        extra={} if config.version == "v1" else {"domain": config.domain or _domain(store)},
    )
    q = questions
    order = np.lexsort((*q.params.T[::-1], q.attribute, q.kind, q.subtask, q.cut, q.user))
    return questions.select(order)


def _domain(store: InteractionStore) -> str:
    """What an interaction of the log is, by the name of its source; a click where that says nothing."""
    source = store.manifest.get("source", {})
    return source.get("options", {}).get("domain") or DOMAIN_OF_SOURCE.get(source.get("name"), "click")
