"""How the error falls with the size of the encoder (the paper's Table 5 and Figure 3).

The law fitted is error = c · size^-α, by least squares of log error on log size: the form in which scaling laws of
language models are stated, bounded by an accuracy of 100 %, and with two parameters. On the paper's own eight sizes it
explains 99.0 % of the variance of accuracy, and accuracy linear in log size 98.2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uqabench.questions.statistics import percentile_interval, resampled_accuracies
from uqabench.report.paper import paper_table
from uqabench.report.rows import BOOTSTRAP_SEED, ScoreRow, comparable

DRAWS = 2000
LEAST_SIZES = 3  # through two points there is always a law


@dataclass(frozen=True)
class PowerLaw:
    """A fitted law: error in percent = `coefficient` · size^-`exponent`.

    sizes, accuracy: (S,) the points, smallest first. draws: (D, 2) coefficient and exponent of resampled data (none
    for printed numbers). resampled: what was drawn.
    """

    label: str
    sizes: np.ndarray
    accuracy: np.ndarray
    ci95: np.ndarray
    coefficient: float
    exponent: float
    draws: np.ndarray
    resampled: str

    def accuracy_at(self, sizes: np.ndarray) -> np.ndarray:
        """(S,) accuracy in percent that the law gives at `sizes`."""
        return 100 - self.coefficient * sizes**-self.exponent

    def band(self, sizes: np.ndarray) -> np.ndarray:
        """(2, S) ends of the 95 % interval of the accuracy at `sizes`."""
        return np.quantile(100 - self.draws[:, :1] * sizes ** -self.draws[:, 1:], [0.025, 0.975], axis=0)

    def sentence(self) -> str:
        """The law as a note under a table."""
        low, high = percentile_interval(self.draws[:, 1])
        return (
            f"{self.label}: error = {self.coefficient:.4g} size^-a with a = {self.exponent:.4f} "
            f"(95 % interval {low:.4f} to {high:.4f}, {self.resampled}), {len(self.sizes)} sizes."
        )


def fit_scaling(rows: Sequence[ScoreRow]) -> list[PowerLaw]:
    """A law for each method whose rows vary one axis and have encoders of at least three sizes."""
    laws = []
    for label in dict.fromkeys(row.label for row in rows):
        of_label = [row for row in rows if row.label == label and _size(row) and "overall" in row.scores]
        varied = {axis for row in of_label for axis in row.axes}
        if len(varied) == 1 and len({_size(row) for row in of_label}) == len(of_label) >= LEAST_SIZES:
            laws.append(_fit_rows(label, sorted(of_label, key=_size)))
    return laws


def paper_scaling() -> PowerLaw:
    """The law of the paper's Table 5; its users are not known, so there are no draws."""
    cells = paper_table("table5").cells
    sizes = np.array([cell.model_size for cell in cells], dtype=np.float64)
    accuracy = np.array([cell.scores["overall"] for cell in cells])
    coefficient, exponent = fit_power_law(sizes, 100 - accuracy)
    return PowerLaw(
        "Trm++ (paper)",
        sizes,
        accuracy,
        np.stack([accuracy] * 2),
        float(coefficient),
        float(exponent),
        np.empty((0, 2)),
        "",
    )


def fit_power_law(sizes: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficient and exponent of error = c · size^-α by least squares in logarithms.

    sizes: (S,), at least two different ones. errors: (..., S) in percent, above 0. Returns two arrays of shape (...,).
    """
    x, y = np.log(sizes), np.log(errors)
    centred = x - x.mean()
    slope = (y * centred).sum(axis=-1) / (centred**2).sum()
    return np.exp(y.mean(axis=-1) - slope * x.mean()), -slope


def _size(row: ScoreRow) -> float:
    return row.sizes.get("model_size") or 0.0


def _fit_rows(label: str, rows: list[ScoreRow]) -> PowerLaw:
    sizes = np.array([_size(row) for row in rows])
    accuracy = np.array([row.scores["overall"]["accuracy"] for row in rows])
    ci95 = np.array([row.scores["overall"]["ci95"] for row in rows]).T
    least = 50 / rows[0].scores["overall"]["n"]  # an error of half a question: the logarithm of 0 does not exist
    if comparable(rows):
        answers = [(row.answers.correct, row.answers.users) for row in rows]
        drawn, resampled = resampled_accuracies(answers, n_boot=DRAWS, seed=BOOTSTRAP_SEED), "users resampled"
    else:
        deviation = (ci95[1] - ci95[0]) / (2 * 1.96)
        generator = np.random.Generator(np.random.Philox(BOOTSTRAP_SEED))
        drawn = generator.normal(accuracy, deviation, size=(DRAWS, len(rows)))
        resampled = "scores drawn from their intervals"
    coefficient, exponent = fit_power_law(sizes, np.maximum(least, 100 - accuracy))
    draws = np.stack(fit_power_law(sizes, np.maximum(least, 100 - drawn)), axis=1)
    return PowerLaw(label, sizes, accuracy, ci95, float(coefficient), float(exponent), draws, resampled)
