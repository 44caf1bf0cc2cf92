"""What the paper claims beside the accuracies of its tables: how many tokens an embedding saves, and that a Q-Former is
unstable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from uqabench.report.claims import Finding, weighted_sum, with_stand_ins
from uqabench.report.paper import paper_table
from uqabench.report.rows import ScoreRow

CHANCE = 25.0
"""Percent: what a row counts for whose training came to nothing."""


@dataclass(frozen=True)
class OtherClaim:
    """text: what the paper says. experiment: whose rows it is about. find: the finding, None where rows are missing."""

    text: str
    experiment: str
    find: Callable[[str, Sequence[ScoreRow]], Finding | None]


def _tokens(numerator: str, denominator: Sequence[str], paper: tuple[str, str]) -> Callable[..., Finding | None]:
    """How many times the tokens of one of the methods `denominator` (that comes first) a prompt of `numerator` has.

    paper: method of the numerator in Table 7, and the integration of the denominator.
    """

    def find(text: str, rows: Sequence[ScoreRow]) -> Finding | None:
        rows, stood_in = with_stand_ins(rows)
        tokens = {row.method: row.avg_tokens for row in rows if row.avg_tokens and not row.axes}
        below = next((name for name in denominator if name in tokens), None)
        if numerator not in tokens or below is None:
            return None
        cells = paper_table("table7").cells
        above = next(cell for cell in cells if cell.method == paper[0])
        least = next(cell for cell in cells if any(paper[1] in names for names in cell.settings))
        note = "text zero-shot" if numerator in stood_in else ""
        told = above.tokens / least.tokens
        return Finding(text, "times", told, tokens[numerator] / tokens[below], None, "times", note)

    return find


def _sensitivity(text: str, rows: Sequence[ScoreRow]) -> Finding | None:
    """What a Q-Former's accuracy loses from its best learning rate to its worst, minus what mean pooling's does."""
    terms: list[tuple[ScoreRow, str, float]] = []
    constant = 0.0
    for integration, sign in (("q-former", 1.0), ("mean-pooling", -1.0)):
        of_one = [row for row in rows if integration in row.method.partition("@")[2].split("+")]
        if len(of_one) < 2:
            return None
        ranked = sorted(of_one, key=_accuracy)
        for row, weight in ((ranked[-1], sign), (ranked[0], -sign)):
            if row.answers is not None:
                terms.append((row, "overall", weight))
            elif _has_diverged(row):
                constant += weight * CHANCE
            else:
                return None
    if not terms:
        return None
    value, (low, high) = weighted_sum(terms)
    return Finding(text, "above", None, value + constant, (low + constant, high + constant))


def _accuracy(row: ScoreRow) -> float:
    return row.scores["overall"]["accuracy"] if row.answers is not None else CHANCE


def _has_diverged(row: ScoreRow) -> bool:
    """Whether training ended in numbers that are not finite, as `stages.training` says it."""
    return any("became nan" in reason or "became inf" in reason for reason in row.failures)


_MEAN_POOLING, _Q_FORMER = ("trm++@mean-pooling", "trm++"), ("trm++@q-former", "trm++@q-former+full")
_SAVED = (
    (
        "Fifty items of text take 19 times the tokens of one soft token",
        _tokens("text50", _MEAN_POOLING, ("text50", "mean pooling")),
    ),
    (
        "Twenty items of text take 8 times the tokens of a Q-Former's 16",
        _tokens("text20", _Q_FORMER, ("text20", "q former")),
    ),
)
OTHER_CLAIMS: tuple[OtherClaim, ...] = (
    *(OtherClaim(text, experiment, find) for experiment in ("encoders", "efficiency") for text, find in _SAVED),
    OtherClaim("A Q-Former is more sensitive to the learning rate than mean pooling", "stability", _sensitivity),
)


def other_findings_of(experiment: str, rows: Sequence[ScoreRow]) -> list[Finding]:
    """The claims about an experiment that its rows can be held against."""
    found = (claim.find(claim.text, rows) for claim in OTHER_CLAIMS if claim.experiment == experiment)
    return [finding for finding in found if finding is not None]
