"""Ridge regression in closed form, with a penalty chosen on held-out rows.

An adapter that is linear in pooled states has a best least-squares start that is known without training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uqabench.errors import InputError

L2_GRID = tuple(10.0**power for power in range(-6, 3))
"""Penalties tried, as multiples of the mean eigenvalue of the centred Gram matrix: independent of scale and of n."""

_ROWS = 8192  # rows turned into float64 at a time


def ridge_regression(x: Tensor, y: Tensor, *, l2: float) -> tuple[Tensor, Tensor]:
    """Minimise Σ_i ‖y_i − W x_i − b‖² + l2 ‖W‖², the bias unpenalised (x and y are centred).

    x (n, d), y (n, m) of any float dtype → W (m, d), b (m,), float64 on the device of x. With l2 = 0 directions in
    which x does not vary get weight 0 (the least-norm solution). InputError for shapes that do not match, no rows,
    values that are not finite, or a negative l2.
    """
    _check(x, y)
    if not 0 <= l2 < float("inf"):
        raise InputError(f"Ridge regression: l2 must be zero or a positive number, not {l2}.")
    return _Moments(x, y).solve(l2)


@dataclass(frozen=True)
class RidgeFit:
    """A ridge regression: weight (m, d) and bias (m,) float64, the penalty, and R² on all rows.

    held_out_r_squared is that of a fit without a fifth of the groups, on that fifth.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    r_squared: float
    held_out_r_squared: float

    def metrics(self) -> dict[str, float]:
        """The penalty and both R² under their names in metrics.json."""
        return {
            "ridge_l2": self.l2,
            "ridge_r_squared": self.r_squared,
            "ridge_held_out_r_squared": self.held_out_r_squared,
        }


def fit_ridge(
    x: Tensor,
    y: Tensor,
    *,
    l2: float | None = None,
    groups: Tensor | None = None,
    grid: Sequence[float] = L2_GRID,
) -> RidgeFit:
    """Ridge regression from x (n, d) to y (n, m) with a penalty chosen on held-out rows.

    Without `l2` the penalty is the one of `grid` (multiples of the mean eigenvalue of x's Gram matrix) that predicts
    a held-out fifth best; the larger one at a tie; all rows are then fitted with it. `groups` (n,) int64, e.g. the
    user of each row, are held out whole, so that a second row of the same user does not flatter a small penalty;
    without it each row is its own group. The fifth is every fifth group in sorted order: no random numbers.

    InputError for shapes that do not match, values that are not finite, a target that does not vary, or fewer than
    ten groups.
    """
    _check(x, y)
    held_out = _held_out(len(x), groups)
    train = _Moments(x[~held_out], y[~held_out])
    candidates = [l2] if l2 is not None else [scale * train.mean_eigenvalue for scale in sorted(grid, reverse=True)]
    scores = [_r_squared(x[held_out], y[held_out], *train.solve(value)) for value in candidates]
    best = max(range(len(scores)), key=scores.__getitem__)  # the first, and so the largest penalty, at a tie
    # The Gram matrix grows with the rows: the penalty grows with it.
    penalty = candidates[best] if l2 is not None else candidates[best] * len(x) / int((~held_out).sum())
    weight, bias = ridge_regression(x, y, l2=penalty)
    return RidgeFit(weight, bias, float(penalty), _r_squared(x, y, weight, bias), scores[best])


class _Moments:
    """Centred second moments of (x, y) in float64, with x's eigenvectors: any penalty is then one small product."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        n = len(x)
        self.x_mean = sum(rows.sum(dim=0) for rows, _ in _blocks(x, y)) / n
        self.y_mean = sum(rows.sum(dim=0) for _, rows in _blocks(x, y)) / n
        gram = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        cross = x.new_zeros(x.shape[1], y.shape[1], dtype=torch.float64)
        for x_rows, y_rows in _blocks(x, y):  # centred before they are multiplied: a large mean costs no digits
            x_rows, y_rows = x_rows - self.x_mean, y_rows - self.y_mean
            gram += x_rows.T @ x_rows
            cross += x_rows.T @ y_rows
        self.eigenvalues, self.eigenvectors = torch.linalg.eigh(gram)
        self.projected = self.eigenvectors.T @ cross
        self.mean_eigenvalue = float(self.eigenvalues.clamp(min=0).mean())

    def solve(self, l2: float) -> tuple[Tensor, Tensor]:
        largest = float(self.eigenvalues.max().clamp(min=0))
        noise = len(self.eigenvalues) * torch.finfo(torch.float64).eps * largest
        varies = self.eigenvalues > noise  # eigenvalues below are rounding: x does not vary in that direction
        inverse = torch.where(varies, 1 / (self.eigenvalues.clamp(min=noise) + l2), 0.0) if largest else 0.0
        weight = (self.eigenvectors @ (inverse * self.projected.T).T).T
        return weight, self.y_mean - weight @ self.x_mean


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(x), _ROWS):
        yield x[start : start + _ROWS].double(), y[start : start + _ROWS].double()


def _r_squared(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> float:
    """1 − residual / total sum of squares of W x + b on rows (x, y), block by block, columns of y centred.

    Zero for predicting the mean, below for worse.
    """
    mean = sum(rows.sum(dim=0) for _, rows in _blocks(x, y)) / len(y)
    residual = sum((rows - x_rows @ weight.T - bias).square().sum() for x_rows, rows in _blocks(x, y))
    total = sum((rows - mean).square().sum() for _, rows in _blocks(x, y))
    if not float(total) > 0:
        raise InputError("R² is undefined: all rows of the target are equal.")
    return 1 - float(residual) / float(total)


def _held_out(n: int, groups: Tensor | None) -> Tensor:
    """Boolean (n,): the rows of every fifth group."""
    if groups is None:
        number = torch.arange(n)
    elif groups.shape != (n,):
        raise InputError(f"Ridge regression: groups has shape {tuple(groups.shape)}, not ({n},).")
    else:
        number = torch.unique(groups, return_inverse=True)[1]
    held_out = number % 5 == 4
    if (n_groups := len(number.unique())) < 10:
        raise InputError(
            f"Ridge regression: {n_groups} users are too few to hold out a fifth: use at least ten, or start the "
            "adapter at random."
        )
    return held_out


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise InputError(
            f"Ridge regression: x {tuple(x.shape)} and y {tuple(y.shape)} must be matrices of equally many rows."
        )
    for name, values in (("x", x), ("y", y)):
        if not bool(torch.isfinite(values).all()):
            row = int((~torch.isfinite(values)).any(dim=1).nonzero()[0])
            raise InputError(f"Ridge regression: {name} is not finite in row {row}.")
