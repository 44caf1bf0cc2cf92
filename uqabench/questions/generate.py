"""Questions from interaction sequences: all sub-tasks, without leaks, ties or short cuts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.questions.core.context import Context
from uqabench.questions.core.entries import choose_cuts
from uqabench.questions.declaration import ASKED
from uqabench.questions.kinds import FAMILIES, KINDS
from uqabench.questions.pools import build_pools, empty_pools
from uqabench.questions.questions import QuestionSet
from uqabench.questions.report import QuestionReport
from uqabench.questions.selection import Selection
from uqabench.questions.tables import basket_starts, build_values, equal_texts
from uqabench.settings.questions import QuestionConfig
from uqabench.vocabulary import SUBTASKS

_CUT_SALT, _ORDER_SALT, _EXTRA_SALT = 11, 12, 13


def generate(
    store: InteractionStore, split: str, config: QuestionConfig, *, threads: int | None = None
) -> tuple[QuestionSet, QuestionReport]:
    """Ask questions about the users of `split` ("train" or "evaluation").

    Whatever wrong options are matched with or drawn from (popularity, what comes next, right answers of others) is
    taken from training users. The result depends on store, split and config only; `threads` (default: numba's
    setting) changes the time alone. Questions are sorted by user and cut.

    Raises InputError when no question at all is possible, or when a sub-task cannot reach the count that `config.mix`
    demands. Counts of the default mix that cannot be reached are lowered, and `QuestionReport.notes` says so.
    """
    context = build_context(store, config)
    possible = tuple(name for name in SUBTASKS if _askable(name, context))
    counts = config.counts(possible)
    everybody = store.users(split)
    cuts = _cuts(context, everybody, config)
    users, cuts = everybody[cuts[:, 0] >= 0], cuts[cuts[:, 0] >= 0]
    order = np.random.Generator(np.random.Philox(key=[config.seed, _ORDER_SALT])).permutation(len(users))
    report = QuestionReport(wanted=counts, left_out=[name for name in config.weights if name not in possible])
    if report.left_out:
        report.notes.append(
            f"The data set lacks the attributes for {', '.join(report.left_out)}: the others share out the questions."
        )
    chosen: list[Selection] = []
    workers = threads or numba.get_num_threads()
    with ThreadPoolExecutor(workers) as pool:
        for name, count in counts.items():
            (family,) = (family for family in FAMILIES if family.subtask == name)
            selection = Selection(context, family, users[order], cuts[order], config, pool, workers)
            # Whoever missed the last sub-task's final turn is first in the next one's.
            order = np.roll(order, -selection.run(count)) if len(users) else order
            if len(selection.taken) < count:
                shortage = _shortage(name, count, selection, _whom(store, everybody, len(users), split, config))
                if config.mix is not None:
                    raise InputError(f"{shortage}: lower its count in mix, or raise cuts_per_user.")
                report.notes.append(f"{shortage}.")
            _enter(report, name, selection)
            chosen.append(selection)
    if not any(report.counts.values()):
        raise InputError(f"No question is possible. {report.notes[-1]}")
    questions = _collect(chosen, store, split, config)
    report.users = len(np.unique(questions.user))
    report.histories = len(np.unique(np.stack([questions.user, questions.cut]), axis=1).T)
    return questions, report


def _cuts(context: Context, users: np.ndarray, config: QuestionConfig) -> np.ndarray:
    """int32 (users, cuts_per_user + extra_cuts): the main cuts, then others; -1 where a user has no more."""
    where = (context.starts, context.offsets, users, config.min_history)
    main = choose_cuts(*where, config.cuts_per_user, context.seed, _CUT_SALT)
    if config.extra_cuts == 0:
        return main
    extra = choose_cuts(*where, config.extra_cuts, context.seed, _EXTRA_SALT)
    extra[(extra[:, :, None] == main[:, None, :]).any(axis=2)] = -1
    first = np.argsort(extra < 0, axis=1, kind="stable")
    return np.concatenate([main, np.take_along_axis(extra, first, axis=1)], axis=1)


def build_context(store: InteractionStore, config: QuestionConfig) -> Context:
    """All that the compiled code reads; learned from training users only."""
    codes = equal_texts(store.catalogue)
    starts = basket_starts(store)
    present = [row for row in range(len(ASKED)) if (codes[row] >= 0).any()]
    context = Context(
        items=store.items,
        starts=starts,
        offsets=store.offsets,
        codes=codes,
        asked=np.array(present, np.int64),
        side=np.array([row for row in present if row > 0], np.int64),
        **build_values(store, codes, starts, config.min_history)._asdict(),
        **empty_pools()._asdict(),
        n_history=config.history,
        window=config.recent_window,
        min_history=config.min_history,
        seed=np.uint64(config.seed),
    )
    pools = build_pools(_frozen(context), store.users("train"), config.cuts_per_user)
    return _frozen(context._replace(**pools._asdict()))


def _frozen(context: Context) -> Context:
    """Read-only contiguous arrays: memory-mapped columns are, and one array type means one compilation."""

    def freeze(array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array).view()
        array.flags.writeable = False
        return array

    return Context(*(freeze(value) if isinstance(value, np.ndarray) else value for value in context))


def _askable(subtask: str, context: Context) -> bool:
    present = {ASKED[row] for row in context.asked}
    kinds = [kind for kind in KINDS if kind.subtask == subtask]
    return any(not kind.attributes or present & set(kind.attributes) for kind in kinds)


def _shortage(name: str, count: int, selection: Selection, whom: str) -> str:
    """That a sub-task did not reach its count, and why, as a sentence without its end."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in selection.discarded().items())
    return f"Sub-task {name}: {count} questions wanted, {len(selection.taken)} possible from {whom}" + (
        f" (candidates discarded: {reasons})" if reasons else ""
    )


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


def _enter(report: QuestionReport, name: str, selection: Selection) -> None:
    report.counts[name] = len(selection.taken)
    report.candidates[name] = selection.candidates
    report.discarded[name] = selection.discarded()
    report.unbalanced[name] = selection.loose
    attributes = [int(candidate.records.attribute[candidate.row]) for _, candidate in selection.taken]
    names = [ASKED[attribute] if attribute >= 0 else "none" for attribute in attributes]
    report.attributes[name] = {value: names.count(value) for value in (*ASKED, "none") if value in names}


def _collect(chosen: list[Selection], store: InteractionStore, split: str, config: QuestionConfig) -> QuestionSet:
    """The candidates taken, as columns sorted by (user, cut, sub-task, kind, attribute, parameters)."""
    rows = [(selection, user, candidate) for selection in chosen for user, candidate in selection.taken]

    def column(name: str, kind: type) -> np.ndarray:
        return np.array([getattr(candidate.records, name)[candidate.row] for _, _, candidate in rows], kind)

    questions = QuestionSet(
        user=np.array([selection.users[user] for selection, user, _ in rows], np.int32),
        cut=np.array([candidate.cut for _, _, candidate in rows], np.int32),
        subtask=np.array([SUBTASKS.index(selection.family.subtask) for selection, _, _ in rows], np.int8),
        kind=column("kind", np.int16) + np.array([selection.first_kind for selection, _, _ in rows], np.int16),
        template=column("template", np.int16),
        attribute=column("attribute", np.int8),
        params=column("params", np.int32),
        option_values=column("values", np.int32),
        option_lengths=column("lengths", np.int8),
        answer=column("answer", np.int8),
        n_history=config.history,
        split=split,
        split_hash=store.split_hash,
    )
    q = questions
    order = np.lexsort((*q.params.T[::-1], q.attribute, q.kind, q.subtask, q.cut, q.user))
    return questions.select(order)
