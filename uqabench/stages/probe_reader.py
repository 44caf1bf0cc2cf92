"""The probe's two linear parts: from vectors to labels by ridge regression, and from labels to options by a logit.

The ridge regression is kept as weights over training histories, so that of tens of thousands of labels only those of
the options asked about are ever computed. Training histories are predicted by regressions without their user's part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from uqabench.data.jit import jit
from uqabench.errors import InputError
from uqabench.stages.probe_labels import AttributeLabels

FOLDS = 4
L2_GRID = tuple(10.0**power for power in range(-4, 2))
"""Penalties tried, as multiples of the mean square of the vectors' entries times the number of histories."""
LOGIT_L2 = 1.0


@dataclass(frozen=True)
class Smoother:
    """Predictions as weights over the n training histories: prediction = mean + weights · labels.

    weights float32 (m, n), zero for histories of the fold that a training history is in. part int64 (m,): that fold, -1
    for a history that no regression has seen. fold int64 (n,). l2: the penalty chosen.
    """

    weights: np.ndarray
    part: np.ndarray
    fold: np.ndarray
    l2: float


def fit_smoother(vectors: Tensor, training: np.ndarray, users: np.ndarray, sketch: np.ndarray) -> Smoother:
    """vectors (m, d) of all histories; training int64 (n,): which are those with labels; users (n,): whose they are;
    sketch (n, k): projected labels, on which the penalty is chosen. InputError for fewer than ten training users."""
    number = np.unique(users, return_inverse=True)[1]
    if number.max(initial=-1) < 9:
        raise InputError(f"A probe needs training questions about ten users, not {number.max(initial=-1) + 1}.")
    fold = number % FOLDS
    x = _scaled(vectors.double(), training)
    part = np.full(len(x), -1)
    part[training] = fold
    targets = torch.from_numpy(sketch - sketch.mean(axis=0))
    errors = torch.zeros(len(L2_GRID), dtype=torch.float64)
    grams = [_Gram(x[training[fold != each]]) for each in range(FOLDS)]
    for each, gram in enumerate(grams):
        known, held_out = targets[fold != each], targets[fold == each]
        for index, l2 in enumerate(L2_GRID):
            errors[index] += (gram.weights(x[training[fold == each]], l2) @ known - held_out).square().sum()
    best = max(range(len(L2_GRID)), key=lambda index: (-float(errors[index]), index))
    weights = np.zeros((len(x), len(training)), np.float32)
    for each, gram in enumerate(grams):
        rows = training[fold == each]
        weights[np.ix_(rows, fold != each)] = gram.weights(x[rows], L2_GRID[best]).float().numpy()
    unseen = np.flatnonzero(part < 0)
    weights[unseen] = _Gram(x[training]).weights(x[unseen], L2_GRID[best]).float().numpy()
    return Smoother(weights, part, fold, L2_GRID[best])


def _scaled(x: Tensor, training: np.ndarray) -> Tensor:
    """Columns centred, and all divided by their common root mean square over training histories."""
    x = x - x[training].mean(dim=0)
    size = x[training].square().mean().sqrt()
    return x / size if float(size) > 0 else x


class _Gram:
    """A regression's training rows x (n, d), solved in the smaller of the two dimensions."""

    def __init__(self, x: Tensor) -> None:
        self.mean = x.mean(dim=0)
        self.x = x - self.mean
        self.is_dual = len(x) < x.shape[1]
        self.gram = self.x @ self.x.T if self.is_dual else self.x.T @ self.x

    def weights(self, asked: Tensor, l2: float) -> Tensor:
        """(m, n): weights of the training rows' labels in the predictions for `asked` (m, d), beside their mean."""
        factor = torch.linalg.cholesky(self.gram + l2 * len(self.x) * torch.eye(len(self.gram), dtype=torch.float64))
        asked = asked - self.mean
        if self.is_dual:
            return torch.cholesky_solve(self.x @ asked.T, factor).T
        return torch.cholesky_solve(asked.T, factor).T @ self.x.T


def predicted_labels(
    smoother: Smoother, labels: AttributeLabels, history: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) float32 (q, s, windows): predicted labels of the values int32 (q, s) for histories (q,), as the
    mean over training histories and what the vector adds to it; zero where a value is -1 or unknown to training."""
    mean = np.zeros((*values.shape, labels.label.shape[1]), np.float32)
    deviation = np.zeros_like(mean)
    sizes = np.bincount(smoother.fold, minlength=FOLDS)
    others = np.append(len(smoother.fold) - sizes, len(smoother.fold)).astype(np.float32)
    _predict(
        smoother.weights, smoother.part, smoother.fold, others, labels.bounds, labels.history, labels.label,
        history, np.ascontiguousarray(values, np.int32), mean, deviation,
    )  # fmt: skip
    return mean, deviation


@jit
def _predict(weights, part, fold, others, bounds, owners, label, history, values, mean, deviation):
    """A sampled product: weights · labels at the values asked about, one entry of the sparse labels after the other."""
    windows = label.shape[1]
    for i in range(len(history)):
        row = weights[history[i]]
        own = part[history[i]]
        n = others[own]  # the last one where own is -1
        for j in range(values.shape[1]):
            value = values[i, j]
            if value < 0 or value >= len(bounds) - 1:
                continue
            for entry in range(bounds[value], bounds[value + 1]):
                owner = owners[entry]
                if fold[owner] == own:
                    continue
                for window in range(windows):
                    mean[i, j, window] += label[entry, window] / n
                    deviation[i, j, window] += label[entry, window] * row[owner]


def fit_logit(features: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Weights (F,) of a conditional logit: features (q, 4, F), answer (q,) 0..3; the penalised maximum likelihood."""
    chosen = np.take_along_axis(features, answer[:, None, None].astype(int), axis=1)[:, 0]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        utility = features @ w
        top = utility.max(axis=1, keepdims=True)
        odds = np.exp(utility - top)
        total = odds.sum(axis=1, keepdims=True)
        value = (np.log(total) + top).sum() - (chosen @ w).sum() + LOGIT_L2 / 2 * (w @ w)
        gradient = np.einsum("qo,qof->f", odds / total, features) - chosen.sum(axis=0) + LOGIT_L2 * w
        return value, gradient

    return minimize(loss, np.zeros(features.shape[2]), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
