"""Ridge regression in closed form, and the adapter that starts from it.

A mean-pool adapter is linear, so its best least-squares start is known without training: the ridge regression from
pooled encoder states to the mean language-model token embedding of the history's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from uqabench.errors import InputError
from uqabench.llm.adapters import MeanPoolAdapter

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


def r_squared(prediction: Tensor, target: Tensor) -> float:
    """1 − residual / total sum of squares over all entries, columns centred; (n, m) each.

    Zero for predicting the mean, below for worse. InputError where the target does not vary.
    """
    if prediction.shape != target.shape:
        raise InputError(f"R²: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape.")
    prediction, target = prediction.double(), target.double()
    return _score((target - prediction).square().sum(), (target - target.mean(dim=0)).square().sum())


def init_adapter_closed_form(
    adapter: MeanPoolAdapter,
    pooled: Tensor,
    targets: Tensor,
    l2: float | None = None,
    *,
    groups: Tensor | None = None,
    grid: Sequence[float] = L2_GRID,
) -> dict[str, float]:
    """Set the adapter's Linear to the ridge solution from `pooled` (n, width) to `targets` (n, llm_width).

    Without `l2` the penalty is the one of `grid` (multiples of the mean eigenvalue of x's Gram matrix) that predicts
    a held-out fifth best; the larger one at a tie; all rows are then fitted with it. `groups` (n,) int64, e.g. the
    user of each row, are held out whole, so that a second row of the same user does not flatter a small penalty;
    without it each row is its own group. The fifth is every fifth group in sorted order: no random numbers.

    Returns `ridge_l2`, `ridge_r_squared` (all rows) and `ridge_held_out_r_squared` (of the fit without them).
    InputError for shapes that do not belong to the adapter, or fewer than ten groups.
    """
    _check(pooled, targets)
    if (pooled.shape[1], targets.shape[1]) != (adapter.width, adapter.llm_width):
        raise InputError(
            f"The adapter maps {adapter.width} to {adapter.llm_width} numbers, but the states have {pooled.shape[1]} "
            f"and the targets {targets.shape[1]}: build it for this encoder and language model."
        )
    held_out = _held_out(len(pooled), groups)
    train = _Moments(pooled[~held_out], targets[~held_out])
    candidates = [l2] if l2 is not None else [scale * train.mean_eigenvalue for scale in sorted(grid, reverse=True)]
    scores = [_prediction_score(pooled[held_out], targets[held_out], *train.solve(value)) for value in candidates]
    best = max(range(len(scores)), key=scores.__getitem__)  # the first, and so the largest penalty, at a tie
    # The Gram matrix grows with the rows: the penalty grows with it.
    penalty = candidates[best] if l2 is not None else candidates[best] * len(pooled) / int((~held_out).sum())
    weight, bias = ridge_regression(pooled, targets, l2=penalty)
    with torch.no_grad():
        adapter.linear.weight.copy_(weight)
        adapter.linear.bias.copy_(bias)
    return {
        "ridge_l2": float(penalty),
        "ridge_r_squared": _prediction_score(pooled, targets, weight, bias),
        "ridge_held_out_r_squared": scores[best],
    }


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
        rises = self.eigenvalues > noise  # eigenvalues below are rounding: x does not vary that way
        inverse = torch.where(rises, 1 / (self.eigenvalues.clamp(min=noise) + l2), 0.0) if largest else 0.0
        weight = (self.eigenvectors @ (inverse * self.projected.T).T).T
        return weight, self.y_mean - weight @ self.x_mean


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(x), _ROWS):
        yield x[start : start + _ROWS].double(), y[start : start + _ROWS].double()


def _prediction_score(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> float:
    """R² of W x + b on rows (x, y), block by block."""
    mean = sum(rows.sum(dim=0) for _, rows in _blocks(x, y)) / len(y)
    residual = sum((rows - x_rows @ weight.T - bias).square().sum() for x_rows, rows in _blocks(x, y))
    return _score(residual, sum((rows - mean).square().sum() for _, rows in _blocks(x, y)))


def _score(residual: Tensor, total: Tensor) -> float:
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
