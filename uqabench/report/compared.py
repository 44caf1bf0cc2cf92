"""Two runs' methods on the questions that both were asked: paired tests over users, whatever the questions' order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uqabench.errors import InputError
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.scoring import is_correct, read_predictions, scope_mask
from uqabench.questions.statistics import paired_difference
from uqabench.report.found import Found, SeedAnswers, Stages, find
from uqabench.report.model import Table
from uqabench.report.rows import BOOTSTRAP_SEED, ScoreRow
from uqabench.report.tables import comparison_table
from uqabench.settings.results import Comparison
from uqabench.vocabulary import SCOPES, SUBTASKS


def compare_results(a: Path | str, b: Path | str, methods: Sequence[str] | None = None) -> Table:
    """Accuracy in `a` minus that in `b`, by method and scope, on the questions that both asked (`identities`).

    a, b: folders of runs or experiments. methods: names that both have, or `NAME_OF_A=NAME_OF_B`; by default all that
    both have. Over several seeds a question is one for each seed. Raises InputError where the two share no question, or
    no method.
    """
    left, right = _only(a), _only(b)
    pairs = _pairs(left, right, methods)
    stages = Stages(left), Stages(right)
    names = _names(Path(a), Path(b))
    comparisons, shared = [], Counter[str]()
    for row_a, row_b in pairs:
        matched = _matched(left, right, stages, row_a, row_b)
        if not len(matched.users):
            continue
        shared[f"{len(matched.users):,} of {matched.asked_a:,} and {matched.asked_b:,}"] += 1
        comparisons += _tests(matched, f"{row_a.name} in {names[0]}", f"{row_b.name} in {names[1]}")
    if not comparisons:
        raise InputError(
            f"{a} and {b} have no question in common: {_why(left, right, stages)}. "
            "Paired tests need the same questions."
        )
    table = comparison_table(comparisons)
    assert table is not None
    notes = [f"Questions that both were asked: {'; '.join(shared)} ({names[0]}, {names[1]})."]
    only = [f"{', '.join(found)} in {name}" for name, found in zip(names, _lonely(left, right), strict=True) if found]
    notes += [f"Without a partner: {'; '.join(only)}."] if only and methods is None else []
    return replace(table, name="compare", notes=[*table.notes, *notes])


def identities(questions: QuestionSet) -> list[Hashable]:
    """What tells each question from every other one of the same data: user, cut, length of history, kind, attribute,
    parameters, the options in any order, and which of them is right. Phrasing and letters do not count.

    Where a set asks one thing twice, the second time is another identity.
    """
    times: Counter[Hashable] = Counter()
    found = []
    for i in range(len(questions)):
        options = questions.options(i)
        key = (
            *(int(questions.user[i]), int(questions.cut[i]), questions.n_history, KINDS[questions.kind[i]].name),
            *(int(questions.attribute[i]), tuple(questions.params[i].tolist())),
            *(tuple(sorted(options)), options[questions.answer[i]]),
        )
        times[key] += 1
        found.append((key, times[key]))
    return found


@dataclass(frozen=True)
class _Matched:
    """Two rows' answers to the questions that both were asked (Q,), and how many each was asked."""

    correct: np.ndarray  # (2, Q)
    subtasks: np.ndarray
    users: np.ndarray
    asked_a: int
    asked_b: int


def _only(path: Path | str) -> Found:
    found = find(path)
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} experiments: name the folder of one ({path}/experiments/…).")
    return found[0]


def _pairs(left: Found, right: Found, methods: Sequence[str] | None) -> list[tuple[ScoreRow, ScoreRow]]:
    of_a, of_b = ({**{row.name: row for row in found.rows}, **_by_method(found)} for found in (left, right))
    if methods is None:
        both = [(row, of_b[row.name]) for row in left.rows if row.name in of_b]
        if not both:
            raise InputError(
                f"The two have no method in common ({', '.join(r.name for r in left.rows)}; "
                f"{', '.join(r.name for r in right.rows)}): give --methods NAME_IN_A=NAME_IN_B."
            )
        return both
    pairs = []
    for text in methods:
        a, _, b = text.partition("=")
        for name, known, found in ((a, of_a, left), (b or a, of_b, right)):
            if name not in known:
                raise InputError(
                    f"{found.title} has no method '{name}': choose from {', '.join(row.name for row in found.rows)}."
                )
        pairs.append((of_a[a], of_b[b or a]))
    return pairs


def _by_method(found: Found) -> dict[str, ScoreRow]:
    """Rows by the method's key, where it has but one."""
    times = Counter(row.method for row in found.rows)
    return {row.method: row for row in found.rows if times[row.method] == 1}


def _names(a: Path, b: Path) -> tuple[str, str]:
    """How the two are called: by their folders' names, where those differ."""
    short = a.resolve().name, b.resolve().name
    return short if short[0] != short[1] else (str(a), str(b))


def _lonely(left: Found, right: Found) -> tuple[list[str], list[str]]:
    a, b = ([row.name for row in found.rows] for found in (left, right))
    return [name for name in a if name not in b], [name for name in b if name not in a]


def _matched(left: Found, right: Found, stages: tuple[Stages, Stages], row_a: ScoreRow, row_b: ScoreRow) -> _Matched:
    of_a, of_b = (
        {each.seed: each for each in found.answers[found.rows.index(row)]}
        for found, row in ((left, row_a), (right, row_b))
    )
    common = [seed for seed in of_a if seed in of_b]
    pairs = [(of_a[seed], of_b[seed]) for seed in common]
    if not common and len(of_a) == len(of_b):
        pairs = list(zip(of_a.values(), of_b.values(), strict=True))
    correct, subtasks, users = [], [], []
    asked = [0, 0]
    for pair in pairs:
        sides = [_side(found, of, each) for found, of, each in zip((left, right), stages, pair, strict=True)]
        asked = [total + len(side[0]) for total, side in zip(asked, sides, strict=True)]
        shared = [key for key in sides[0][0] if key in sides[1][0]]
        at = [[side[0][key] for key in shared] for side in sides]
        correct.append(np.stack([side[1][places] for side, places in zip(sides, at, strict=True)]))
        subtasks.append(sides[0][2][at[0]])
        users.append(sides[0][3][at[0]])
    if not pairs:
        return _Matched(np.zeros((2, 0), bool), np.array([]), np.array([]), *asked)
    return _Matched(np.concatenate(correct, axis=1), np.concatenate(subtasks), np.concatenate(users), *asked)


def _side(
    found: Found, stages: Stages, each: SeedAnswers
) -> tuple[dict[Hashable, int], np.ndarray, np.ndarray, np.ndarray]:
    """Places of the questions by identity, and by place: whether right (Q,), sub-task with level (Q,), user (Q,)."""
    inputs = stages.inputs(each.folder)
    questions = stages.questions(inputs["questions"])
    rows = sorted(read_predictions(each.predictions), key=lambda row: row["id"])
    if len(rows) != len(questions):
        raise InputError(
            f"{each.predictions} does not answer each of its {len(questions)} questions: evaluate it again."
        )
    levels = [KINDS[kind].level for kind in questions.kind]
    names = [
        f"{SUBTASKS[s]}:{level}" if level else SUBTASKS[s] for s, level in zip(questions.subtask, levels, strict=True)
    ]
    places = {(inputs["data"], key): index for index, key in enumerate(identities(questions))}
    return places, is_correct(rows, found.rule), np.array(names), questions.user


def _tests(matched: _Matched, a: str, b: str) -> list[Comparison]:
    found: list[Comparison] = []
    for scope in SCOPES:
        asked = scope_mask(matched.subtasks, scope)
        if not asked.any():
            continue
        result = paired_difference(*matched.correct[:, asked], matched.users[asked], seed=BOOTSTRAP_SEED)
        found.append(
            {
                "a": a,
                "b": b,
                "scope": scope,
                "difference": result.difference,
                "ci95": list(result.ci95),
                "p_value": result.p_value,
                "n": result.n,
                "users": result.users,
                "detectable": None if math.isnan(result.detectable) else result.detectable,
            }
        )
    return found


def _why(left: Found, right: Found, stages: tuple[Stages, Stages]) -> str:
    """What differs between two sets of results without a common question."""
    contents = [
        {of.inputs(each.folder)["data"] for answers in found.answers for each in answers}
        for found, of in zip((left, right), stages, strict=True)
    ]
    if not contents[0] & contents[1]:
        return "they were prepared from different data, or with other settings of data.prepare"
    return "their settings of questions.evaluation differ (version, mix, seed, history or cuts)"
