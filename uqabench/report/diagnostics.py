"""Tables of what stands behind the scores: intervals of two kinds, letters, calibration, and where variance is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from uqabench.questions.calibration import BINS, Positions, Reliability, positions, reliability
from uqabench.questions.scoring import align_answers, is_correct, read_predictions
from uqabench.questions.statistics import accuracy, wilson
from uqabench.questions.variance import Variance, variance_components
from uqabench.report.found import Found
from uqabench.report.model import Cell, Column, Section, Table
from uqabench.report.rows import BOOTSTRAP_SEED, ScoreRow
from uqabench.report.scores import bounds, sections_of
from uqabench.vocabulary import LETTERS

Predictions = list[list[dict[str, Any]]]
"""A row's prediction lines, by seed."""


def diagnostic_tables(found: Found) -> list[Table]:
    """The tables for which there are answers: intervals, letters, calibration, reliability, variance."""
    answered = [
        (row, [sorted(read_predictions(each.predictions), key=lambda line: line["id"]) for each in answers])
        for row, answers in zip(found.rows, found.answers, strict=True)
        if answers
    ]
    if not answered:
        return []
    with_logits = [
        (row, seeds) for row, seeds in answered if all("logits" in line for lines in seeds for line in lines)
    ]
    tables = [_intervals(answered, found.rule), _letters(answered)]
    if with_logits:
        tables += _calibration(with_logits)
    if any(len(seeds) > 1 for _, seeds in answered):
        tables.append(_variance([(row, seeds) for row, seeds in answered if len(seeds) > 1], found.rule))
    return tables


def _intervals(answered: Sequence[tuple[ScoreRow, Predictions]], rule: str) -> Table:
    """Overall accuracy with the bootstrap over users and Wilson's interval beside it."""
    columns = [
        Column("Method"),
        Column("Users", alone="Interval over users"),
        Column("Wilson", alone="Wilson's interval"),
    ]
    columns += [Column("Ratio of widths"), Column("n", decimals=0, fixed=True), Column("Users", decimals=0, fixed=True)]
    body, records = [], []
    for row, seeds in answered:
        correct = np.concatenate([is_correct(lines, rule) for lines in seeds])
        users = np.array([str(line["user"]) for lines in seeds for line in lines])
        clustered, single = accuracy(correct, users, seed=BOOTSTRAP_SEED), wilson(correct)
        widths = [high - low for low, high in (clustered.ci95, single.ci95)]
        n, n_users = len(seeds[0]), len(np.unique(users))
        ratio = widths[0] / widths[1]
        cells = [clustered.accuracy, clustered.ci95, single.ci95]
        body.append(
            [Cell(row.name), Cell(cells[0], cells[1]), Cell(cells[0], cells[2]), Cell(ratio), Cell(n), Cell(n_users)]
        )
        record = {"method": row.name, "accuracy": clustered.accuracy, **bounds(clustered.ci95)}
        wilson_ends = {f"wilson_{key}": value for key, value in bounds(single.ci95).items()}
        records.append({**record, **wilson_ends, "ratio": ratio, "n": n, "users": n_users})
    notes = [
        "Overall accuracy in percent with 95 % intervals: the bootstrap over users, and Wilson's, which takes answers "
        "as independent. A ratio above 1 says how much wider users make it: what Wilson's leaves out."
    ]
    return Table("intervals", columns, sections_of([row for row, _ in answered], body, titled=False), records, notes)


def _letters(answered: Sequence[tuple[ScoreRow, Predictions]]) -> Table:
    """By letter, how often it is given and how often it is found where it is right."""
    columns = [Column("Method")]
    columns += [Column(letter, alone=f"Given {letter}", span="Given", decimals=1) for letter in LETTERS]
    columns += [Column(letter, alone=f"Found {letter}", span="Found where right", decimals=1) for letter in LETTERS]
    columns.append(Column("Spread", decimals=1))
    body, records = [], []
    for row, seeds in answered:
        found = _positions(seeds)
        body.append([Cell(row.name), *map(_number, [*found.given, *found.found, found.spread])])
        shares = {"right": found.right, "given": found.given, "found": found.found}
        record = {f"{name}_{letter}": v for name, of in shares.items() for letter, v in zip(LETTERS, of, strict=True)}
        records.append({"method": row.name, **record, "spread": found.spread})
    right = _positions(answered[0][1]).right
    shares = ", ".join(f"{letter} {share:.1f}" for letter, share in zip(LETTERS, right, strict=True))
    notes = [
        f"Percent of questions; right are {shares}. Spread is the standard deviation of the right half over the "
        "letters, in points: 0 without a preference for a letter (RStd, Zheng et al. 2024)."
    ]
    return Table("letters", columns, sections_of([row for row, _ in answered], body, titled=False), records, notes)


def _positions(seeds: Predictions) -> Positions:
    given = [LETTERS.index(p) if (p := line["prediction"]) in LETTERS else -1 for lines in seeds for line in lines]
    return positions(np.array(given), np.array([LETTERS.index(line["answer"]) for lines in seeds for line in lines]))


def _calibration(answered: Sequence[tuple[ScoreRow, Predictions]]) -> list[Table]:
    """How far probabilities are from what comes true, and the curve behind it."""
    columns = [Column("Method"), Column("Accuracy"), Column("Confidence"), Column("ECE"), Column("Brier", decimals=3)]
    curve = [Column("Probability, %"), Column("Accuracy, %"), Column("n", decimals=0, fixed=True)]
    body, records, points, sections = [], [], [], []
    rows = [row for row, _ in answered]
    for row, seeds in answered:
        found = _reliability(seeds)
        n = found.n.sum()
        right, sure = (float(values @ found.n / n) for values in (found.accuracy, found.confidence))
        body.append([Cell(row.name), *map(Cell, (right, sure, found.error, found.brier))])
        record = {"method": row.name, "accuracy": right, "confidence": sure, "ece": found.error, "brier": found.brier}
        records.append({**record, "n": int(n)})
        bins = list(zip(found.confidence.tolist(), found.accuracy.tolist(), found.n.tolist(), strict=True))
        sections.append((row.name, [[Cell(value) for value in bin_] for bin_ in bins]))
        points += [{"method": row.name, "confidence": c, "accuracy": a, "n": k} for c, a, k in bins]
    notes = [
        "Confidence is the mean probability of the letter given, among the four letters; ECE its expected distance "
        f"from accuracy in points, over {BINS} bins of equal width (Guo et al. 2017); Brier the mean squared error of "
        "the four probabilities, 0.75 where all are a quarter. The table `reliability` has the bins."
    ]
    return [
        Table("calibration", columns, sections_of(rows, body, titled=False), records, notes),
        Table("reliability", curve, [Section(name, lines) for name, lines in sections], points),
    ]


def _reliability(seeds: Predictions) -> Reliability:
    logits = np.array([line["logits"] for lines in seeds for line in lines])
    return reliability(logits, np.array([LETTERS.index(line["answer"]) for lines in seeds for line in lines]))


def _variance(answered: Sequence[tuple[ScoreRow, Predictions]], rule: str) -> Table:
    """How much of an answer's variance, and of the score's, is seeds, users and questions."""
    sources = ("Seeds", "Users", "Questions", "Rest")
    columns = [Column("Method")]
    columns += [Column(name, alone=f"Answer: {name.lower()}", span="Of one answer", decimals=1) for name in sources]
    columns += [Column(name, alone=f"Score: {name.lower()}", span="Of the score", decimals=1) for name in sources]
    columns.append(Column("Score's sd"))
    body, records = [], []
    for row, seeds in answered:
        found = _components(seeds, rule)
        deviation = 100 * float(np.sqrt(sum(found.of_score.values())))
        answer, score = found.shares(), found.score_shares()
        body.append([Cell(row.name), *map(_number, [*answer.values(), *score.values(), deviation])])
        record = {f"answer_{name}": share for name, share in answer.items()}
        record |= {f"score_{name}": share for name, share in score.items()}
        records.append({"method": row.name, "seeds": len(seeds), **record, "score_sd": deviation})
    notes = [
        "Percent of variance (random effects of seeds, users, and questions of a user; ANOVA estimates): of whether "
        "one answer is right, and of Overall over new seeds, users and questions of the same numbers, whose standard "
        "deviation in points stands last. Rest is what a question's answer changes from seed to seed."
    ]
    return Table("variance", columns, sections_of([row for row, _ in answered], body, titled=False), records, notes)


def _components(seeds: Predictions, rule: str) -> Variance:
    correct, _, users = align_answers(seeds, rule)
    return variance_components(correct, users)


def _number(value: float) -> Cell:
    return Cell(None if np.isnan(value) else float(value))
