"""What an experiment says of the benchmark itself: whether its score measures the encoder, in five goals.

1. The best vector answers about as well as the history as text, and tells what was last.
2. What pre-training taught an encoder is in the score, overall and in what comes next.
3. What comes next cannot be answered without the history, can with it, and vectors carry some of that.
4. The language model reads what a linear probe reads.
5. Encoders are told apart, in the order in which probes see them.

A goal is held against an experiment that has the methods, judges and probes it is about, and left out elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from uqabench.questions.scoring import align_answers, read_predictions, scope_mask
from uqabench.questions.statistics import LEVEL, PairedDifference, holm, paired_difference
from uqabench.report.claims import weighted_sum
from uqabench.report.rows import BOOTSTRAP_SEED, Answers, ScoreRow, rivals
from uqabench.settings.results import AdjustedDifference, ExperimentResults

MOST_TOKENS = 8
"""Soft tokens, at most, of the method that is held against text."""
BELOW_TEXT, LAST_ITEMS = 1.0, 55.0
"""Points by which it may be below text, and its least accuracy on df."""
SIGNIFICANT = 0.01
"""Largest p, after Holm's correction, of what pre-training adds."""
WITHOUT, WITH, LEAD = 29.0, 45.0, 8.0
"""Of ip and ap: most without the history, least with it, and least points of a vector over the former."""
UNREAD = 5.0
"""Points, at most, that the language model reads less than the probe."""
DETECTABLE = 1.0
"""Points, at most, of the smallest difference between two encoders that is found with a power of 80 %."""
READ = ("df", "li", "si", "it")
"""Sub-tasks about what a history holds."""
SEEN = "soft tokens"
"""What probe and language model are both given."""


@dataclass(frozen=True)
class Goal:
    """One line: the goal's number, what is measured, what is wanted, what was found, and whether that meets it."""

    number: int
    text: str
    wanted: str
    found: str
    met: bool


@dataclass(frozen=True)
class Measured:
    """An experiment's results and rows, and the run folder in which its answers lie."""

    results: ExperimentResults
    rows: Sequence[ScoreRow]
    run: Path

    def named(self, method: str) -> ScoreRow | None:
        """The first row with answers of a method, whatever its variant."""
        return next((row for row in self._answered() if row.method.partition("@")[0] == method), None)

    def embeddings(self) -> list[ScoreRow]:
        """Methods that show few enough soft tokens, controls aside."""
        return [row for row in rivals(self._answered()) if 0 < self._soft_tokens(row) <= MOST_TOKENS]

    def texts(self) -> list[ScoreRow]:
        """Methods that show the history as text."""
        return [row for row in rivals(self._answered()) if row.group == "Text-based"]

    def encoders(self) -> list[ScoreRow]:
        """The rows that differ from the best embedding in nothing but the encoder, and that one."""
        embeddings = self.embeddings()
        settings = _settings(best(embeddings)) if embeddings else ""
        return [row for row in embeddings if _settings(row) == settings]

    def probe(self, row: ScoreRow) -> Answers | None:
        """What a probe of the row's soft tokens answers, question by question as in `row.answers`; None without one."""
        cells = [cell for cell in self.results["cells"] if row.has(cell) and cell["seed"] in row.seeds]
        files = [cell.get("probe_answers", {}).get(SEEN) for cell in sorted(cells, key=lambda cell: cell["seed"])]
        if not files or not all(name and (self.run / name).is_file() for name in files):
            return None
        by_id = (sorted(read_predictions(self.run / name), key=lambda line: line["id"]) for name in files)
        parts = [align_answers([lines]) for lines in by_id]
        correct, subtasks, users = (np.concatenate([part[place] for part in parts], axis=-1) for place in range(3))
        return Answers(correct[0], subtasks, users)

    def _answered(self) -> list[ScoreRow]:
        return [row for row in self.rows if row.answers is not None and row.scores]

    def _soft_tokens(self, row: ScoreRow) -> int:
        return max((cell.get("soft_tokens", 0) for cell in self.results["cells"] if row.has(cell)), default=0)


def goals_of(measured: Measured) -> list[Goal]:
    """The lines of all goals that the experiment can be held against."""
    parts = (_near_text, _over_twins, _next_items, _read_by_the_model, _told_apart)
    return [goal for part in parts for goal in part(measured)]


def best(rows: Sequence[ScoreRow]) -> ScoreRow:
    """The row with the highest score."""
    return max(rows, key=lambda row: row.scores["overall"]["accuracy"])


def _near_text(measured: Measured) -> Iterator[Goal]:
    embeddings, texts = measured.embeddings(), measured.texts()
    if not embeddings or not texts:
        return
    method, text = best(embeddings), best(texts)
    lead, interval = weighted_sum([(method, "overall", 1.0), (text, "overall", -1.0)])
    title = f"{method.name} minus {text.name}, overall"
    yield Goal(1, title, f"≥ -{BELOW_TEXT:g}", _points(lead, interval), lead >= -BELOW_TEXT)
    if _asked(method, "df"):
        score, interval = weighted_sum([(method, "df", 1.0)])
        yield Goal(1, f"{method.name}, df", f"≥ {LAST_ITEMS:g}", _percent(score, interval), score >= LAST_ITEMS)


def _over_twins(measured: Measured) -> Iterator[Goal]:
    for row in measured.rows:
        if row.over_twin is not None:
            yield _over_twin(row, "overall", row.over_twin)
            if "action_prediction" in row.over_twin.get("tasks", {}):
                yield _over_twin(row, "action prediction", row.over_twin["tasks"]["action_prediction"])


def _over_twin(row: ScoreRow, scope: str, gain: AdjustedDifference) -> Goal:
    found = f"{_points(gain['difference'], gain['ci95'])}, p = {gain['p_holm']:.4f}"
    met = gain["difference"] > 0 and gain["p_holm"] < SIGNIFICANT
    return Goal(2, f"{row.name} minus its untrained twin, {scope}", f"> 0, p < {SIGNIFICANT:g}", found, met)


def _next_items(measured: Measured) -> Iterator[Goal]:
    without, having = measured.named("no-history-model"), measured.named("history-model")
    embeddings = measured.embeddings()
    if without is None or having is None or not embeddings:
        return
    for scope in ("ip", "ap"):
        if not _asked(without, scope):
            continue
        for judge, wanted, sign in ((without, WITHOUT, -1), (having, WITH, 1)):
            score, interval = weighted_sum([(judge, scope, 1.0)])
            title, sense = f"{judge.name}, {scope}", "≤" if sign < 0 else "≥"
            yield Goal(3, title, f"{sense} {wanted:g}", _percent(score, interval), sign * (score - wanted) >= 0)
        method = max(embeddings, key=lambda row: row.scores[scope]["accuracy"])
        lead, interval = weighted_sum([(method, scope, 1.0), (without, scope, -1.0)])
        title = f"{method.name} minus {without.name}, {scope}"
        yield Goal(3, title, f"≥ {LEAD:g}", _points(lead, interval), lead >= LEAD)


def _read_by_the_model(measured: Measured) -> Iterator[Goal]:
    embeddings = measured.embeddings()
    methods = [best(embeddings)] if embeddings else []
    exact = measured.named("history-vector")
    for row in [*methods, *([exact] if exact else [])]:
        probe = measured.probe(row)
        for scope in READ:
            if probe is None or not _asked(row, scope):
                continue
            unread = _difference(probe, row.answers, scope)
            title = f"Probe minus language model, {row.name}, {scope}"
            yield Goal(4, title, f"≤ {UNREAD:g}", _points(unread.difference, unread.ci95), unread.difference <= UNREAD)


def _told_apart(measured: Measured) -> Iterator[Goal]:
    encoders = measured.encoders()
    pairs = list(combinations(encoders, 2))
    if not pairs or any(not np.array_equal(a.answers.users, b.answers.users) for a, b in pairs):
        return
    differences = [_difference(a.answers, b.answers, "overall") for a, b in pairs]
    largest = max(found.detectable for found in differences)
    title = f"Detectable difference between two of {len(encoders)} encoders, overall, at most"
    yield Goal(5, title, f"≤ {DETECTABLE:g}", f"{largest:.2f}", largest <= DETECTABLE)
    probes = {row.name: measured.probe(row) for row in encoders}
    adjusted = holm([found.p_value for found in differences])
    apart = [
        (found.difference, _difference(probes[a.name], probes[b.name], "overall").difference)
        for (a, b), found, p in zip(pairs, differences, adjusted, strict=True)
        if p < 1 - LEVEL and probes[a.name] is not None and probes[b.name] is not None
    ]
    if apart:
        agree = sum(answered * probed > 0 for answered, probed in apart)
        title = "Pairs of encoders told apart whose probes stand in the same order"
        yield Goal(5, title, "all", f"{agree} of {len(apart)}", agree == len(apart))


def _settings(row: ScoreRow) -> str:
    return json.dumps([row.method.partition("@")[2], row.axes], sort_keys=True)


def _asked(row: ScoreRow, scope: str) -> bool:
    return scope in row.scores and bool(scope_mask(row.answers.subtasks, scope).any())


def _difference(a: Answers, b: Answers, scope: str) -> PairedDifference:
    asked = scope_mask(a.subtasks, scope)
    return paired_difference(a.correct[asked], b.correct[asked], a.users[asked], seed=BOOTSTRAP_SEED)


def _points(value: float, interval: Sequence[float]) -> str:
    return f"{value:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def _percent(value: float, interval: Sequence[float]) -> str:
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"
