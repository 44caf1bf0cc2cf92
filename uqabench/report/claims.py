"""The paper's claims, each as a combination of accuracies that its tables hold, and ours beside.

A claim is a weighted sum of accuracies and what it says of it: that it is positive, negative, or near zero. The same
sum is taken of the paper's numbers and of an experiment's answers, there with an interval from users drawn with
replacement, the same ones in all of its terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from uqabench.questions.scoring import scope_mask
from uqabench.questions.statistics import percentile_interval, resampled_accuracies
from uqabench.report.paper import PaperCell, paper_table
from uqabench.report.rows import BOOTSTRAP_SEED, ScoreRow
from uqabench.vocabulary import ENCODERS, SUBTASKS

MARGIN = 3.0
"""Percentage points within which two scores count as about the same."""
EVERYBODY = 3
"""Encoders, at least, of which a claim about all of them can be told."""
TIMES_MARGIN = 0.1
"""Share by which a factor may stay below the paper's."""


@dataclass(frozen=True)
class Term:
    """One accuracy of a weighted sum: a line of the paper's table, a scope, and a weight."""

    cell: PaperCell
    scope: str
    weight: float


@dataclass(frozen=True)
class Side:
    """One side's table: its lines, and what each scored. Choices such as "the best one" are made on each side alone."""

    cells: list[PaperCell]
    score: Callable[[PaperCell, str], float]

    def of(self, *methods: str) -> list[PaperCell]:
        """The lines of these methods."""
        return [cell for cell in self.cells if cell.method in methods]

    def at(self, *settings: str) -> list[PaperCell]:
        """The lines with all of these settings."""
        return [cell for cell in self.cells if all(any(s in names for names in cell.settings) for s in settings)]

    def best(self, cells: Sequence[PaperCell], scope: str) -> PaperCell:
        """The line with the highest score."""
        return max(cells, key=lambda cell: self.score(cell, scope))


Terms = Callable[[Side], list[Term]]


@dataclass(frozen=True)
class Claim:
    """text: what the paper says. experiment, table: ours and the paper's. expects: "above", "below" or "near" zero.

    terms: the weighted sum, whose unit is percentage points unless `unit` says otherwise.
    """

    text: str
    experiment: str
    table: str
    expects: str
    terms: Terms
    unit: str = "points"


@dataclass(frozen=True)
class Finding:
    """A claim on one data set: the paper's value (None where it gives none), ours with its 95 % interval (None where it
    is counted, not sampled), and the verdict.

    expects: "above", "below" or "near" zero, or "times": as large a factor as the paper's, or larger. note: what stands
    in for lines of the paper's.
    """

    text: str
    expects: str
    paper: float | None
    ours: float
    ci95: tuple[float, float] | None
    unit: str = "points"
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "holds", "does not hold" or "cannot tell", by where the whole interval lies."""
        low, high = self.ci95 or (self.ours, self.ours)
        if self.expects == "times":
            least = (1 - TIMES_MARGIN) * (self.paper or 0.0)
            return _judged(low >= least, high < least)
        if self.expects == "near":
            return _judged(-MARGIN < low and high < MARGIN, low > MARGIN or high < -MARGIN)
        return _judged(low > 0, high < 0) if self.expects == "above" else _judged(high < 0, low > 0)


def _judged(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "cannot tell"


def _difference(left: Sequence[PaperCell], right: Sequence[PaperCell], scope: str) -> list[Term]:
    """Mean score of the left lines minus that of the right ones; ValueError where a side has no line."""
    if not left or not right:
        raise ValueError("a difference needs lines on both sides")
    of_left = [Term(cell, scope, 1 / len(left)) for cell in left]
    return of_left + [Term(cell, scope, -1 / len(right)) for cell in right]


def _best_embedding_minus(text: str, scope: str) -> Terms:
    return lambda side: _difference([side.best(side.of(*ENCODERS), scope)], side.of(text), scope)


def _leaders(side: Side) -> list[Term]:
    return _difference(side.of("hstu", "trm++"), side.of("gru4rec", "sasrec", "mamba4rec"), "overall")


def _weakest(side: Side) -> list[Term]:
    """Match features minus the sub-task that is weakest of the others, on average over the encoders."""
    cells = side.of(*ENCODERS)
    if len(cells) < EVERYBODY:
        raise ValueError("what holds for everybody needs several encoders")
    others = [name for name in SUBTASKS if name != "mf"]
    weakest = min(others, key=lambda name: fmean(side.score(cell, name) for cell in cells))
    share = 1 / len(cells)
    return [Term(cell, scope, sign * share) for scope, sign in (("mf", 1), (weakest, -1)) for cell in cells]


def _minus_the_best_other(*settings: str) -> Terms:
    def terms(side: Side) -> list[Term]:
        chosen = side.at(*settings)
        others = [cell for cell in side.cells if cell not in chosen]
        return _difference(chosen, [side.best(others, "overall")], "overall")

    return terms


def _slope(last: int | None, scope: str = "overall") -> Terms:
    """Least-squares slope, in points a doubling of the encoder's size, over all lines of Trm++ or the `last` ones."""

    def terms(side: Side) -> list[Term]:
        cells = [cell for cell in side.of("trm++") if cell.model_size][-(last or 0) :]
        log_size = [math.log2(cell.model_size) for cell in cells]
        centred = [x - fmean(log_size) for x in log_size]
        total = sum(x * x for x in centred)
        return [Term(cell, scope, x / total) for cell, x in zip(cells, centred, strict=True)]

    return terms


def _longest(scope: str) -> Terms:
    """The longest sequence minus half of it."""
    return lambda side: _difference([side.cells[-1]], [side.cells[-2]], scope)


def _longest_but_one(scope: str) -> Terms:
    return lambda side: _difference([side.cells[-2]], [side.cells[0]], scope)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "The best embedding answers about as well as twenty items of text", "encoders", "table2", "near",
        _best_embedding_minus("text20", "overall"),
    ),
    Claim(
        "The best embedding is better than fifty items of text at the next item (IP)", "encoders", "table2", "above",
        _best_embedding_minus("text50", "ip"),
    ),
    Claim(
        "It is worse at interest perception", "encoders", "table2", "below",
        _best_embedding_minus("text50", "interest_perception"),
    ),
    Claim("HSTU and Trm++ lead the other encoders", "encoders", "table2", "above", _leaders),
    Claim(
        "SASRec equals HSTU on sequence understanding", "encoders", "table2", "near",
        lambda side: _difference(side.of("sasrec"), side.of("hstu"), "sequence_understanding"),
    ),
    Claim(
        "… but is worse on interest perception", "encoders", "table2", "below",
        lambda side: _difference(side.of("sasrec"), side.of("hstu"), "interest_perception"),
    ),
    Claim("Match features are everybody's weakest sub-task", "encoders", "table2", "below", _weakest),
    Claim(
        "Supervised pre-training with all inputs is best", "pretraining", "table3", "above",
        _minus_the_best_other("sl", "full"),
    ),
    Claim(
        "A Q-Former with full fine-tuning is the best integration", "finetuning", "table4", "above",
        _minus_the_best_other("q-former", "full"),
    ),
    Claim(
        "A Q-Former with the adapter alone collapses", "finetuning", "table4", "below",
        lambda side: _difference(side.at("q-former", "adapter"), side.at("q-former", "full"), "overall"),
    ),
    Claim(
        "Accuracy grows with the encoder's size", "model-size", "table5", "above", _slope(None), "points a doubling",
    ),
    Claim(
        "… and does not level off among the four largest", "model-size", "table5", "above", _slope(4),
        "points a doubling",
    ),
    Claim(
        "Longer sequences in pre-training help interest perception", "sequence-length", "table6", "above",
        _longest_but_one("interest_perception"),
    ),
    Claim(
        "… up to half of the longest, where it saturates", "sequence-length", "table6", "near",
        _longest("interest_perception"),
    ),
)  # fmt: skip


def findings_of(experiment: str, rows: Sequence[ScoreRow]) -> list[Finding]:
    """The claims of the paper's tables about an experiment that its rows can be held against: those whose lines all
    have answers."""
    found = (_finding(claim, rows) for claim in CLAIMS if claim.experiment == experiment)
    return [finding for finding in found if finding is not None]


def _finding(claim: Claim, rows: Sequence[ScoreRow]) -> Finding | None:
    table = paper_table(claim.table)
    rows, stood_in = with_stand_ins(rows)
    beside, _ = table.beside(rows)
    row_of = {id(cell): row for cell, row in zip(beside, rows, strict=True) if cell and row.answers is not None}
    ours = Side([cell for cell in table.cells if id(cell) in row_of], lambda c, scope: _accuracy(row_of[id(c)], scope))
    theirs = Side(table.cells, lambda cell, scope: cell.scores[scope])
    try:
        terms, paper = claim.terms(ours), claim.terms(theirs)
    except (ValueError, ZeroDivisionError, IndexError):  # a line that the claim is about is not among the rows
        return None
    of_term = [(row_of[id(term.cell)], term.scope, term.weight) for term in terms]
    if not terms or not all(scope_mask(row.answers.subtasks, scope).any() for row, scope, _ in of_term):
        return None
    value, interval = weighted_sum(of_term)
    told = sum(term.weight * term.cell.scores[term.scope] for term in paper)
    note = "text zero-shot" if stood_in & {row.method for row, *_ in of_term} else ""
    return Finding(claim.text, claim.expects, told, value, interval, claim.unit, note)


def with_stand_ins(rows: Sequence[ScoreRow]) -> tuple[list[ScoreRow], set[str]]:
    """The rows, text methods that were only asked zero-shot under the names of those that are aligned, and these
    names."""
    names = {row.method for row in rows}
    plain = {row.method: row.method.removesuffix("@zero-shot") for row in rows if row.group == "Text-based"}
    stood_in = {name for method, name in plain.items() if name != method and name not in names}
    renamed = [replace(row, method=plain[row.method]) if plain.get(row.method) in stood_in else row for row in rows]
    return renamed, stood_in


def _accuracy(row: ScoreRow, scope: str) -> float:
    asked = scope_mask(row.answers.subtasks, scope)
    return 100 * float(row.answers.correct[asked].mean()) if asked.any() else math.nan


def weighted_sum(terms: Sequence[tuple[ScoreRow, str, float]]) -> tuple[float, tuple[float, float]]:
    """Σ weight · accuracy (percent) over (row, scope, weight), and its 95 % interval over users drawn with replacement.

    A drawn user is drawn in every term, so that rows about the same questions are compared question by question.
    """
    answers = []
    for row, scope, _ in terms:
        asked = scope_mask(row.answers.subtasks, scope)
        answers.append((row.answers.correct[asked], row.answers.users[asked]))
    weights = np.array([weight for _, _, weight in terms])
    value = sum(weight * 100 * correct.mean() for (correct, _), weight in zip(answers, weights, strict=True))
    return float(value), percentile_interval(resampled_accuracies(answers, seed=BOOTSTRAP_SEED) @ weights)
