"""The probe's two linear parts: from vectors to labels by ridge regression, and from labels to options by a logit.

The ridge regression is kept as weights over training histories, so that of tens of thousands of labels only those of
the options asked about are ever computed. Training histories are predicted by regressions without their user's part.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from uqabench.data.jit import jit
from uqabench.errors import InputError
from uqabench.stages.probe_labels import AttributeLabels

FOLDS = 4
TRIED_FOLDS = 2
"""Held-out folds on which each window's tokens and penalty are chosen."""
L2_GRID = tuple(10.0**power for power in (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0))
"""Penalties tried, as multiples of the mean square of the vectors' entries times the number of histories."""
LOGIT_L2 = 1.0


@dataclass(frozen=True)
class Source:
    """A regression from some of a vector's tokens: which, with which penalty, for which windows' labels.

    weights float32 (m, n): over the n training histories, of their labels in the prediction for each of m histories,
    beside the labels' mean; zero for the fold that a training history is in itself.
    """

    tokens: tuple[int, ...]
    l2: float
    windows: tuple[int, ...]
    weights: np.ndarray


@dataclass(frozen=True)
class Smoother:
    """The regressions of all windows. fold int64 (n,): of each training history; part int64 (m,): the fold of each
    history, -1 for one that no regression has seen."""

    sources: list[Source]
    part: np.ndarray
    fold: np.ndarray


def fit_smoother(vectors: Tensor, training: np.ndarray, users: np.ndarray, sketch: np.ndarray) -> Smoother:
    """Choose for each window the token that predicts its labels best (of two tokens also both), and a penalty a token.

    All of many tokens at once have more columns than a few thousand histories can fit.

    vectors (m, tokens, d) of all histories; training int64 (n,): which are those with labels; users (n,): whose they
    are; sketch (n, windows, k): projected labels, on held-out folds of which the choice is made. InputError for fewer
    than ten training users.
    """
    number = np.unique(users, return_inverse=True)[1]
    if number.max(initial=-1) < 9:
        raise InputError(f"A probe needs training questions about ten users, not {number.max(initial=-1) + 1}.")
    fold = number % FOLDS
    part = np.full(len(vectors), -1)
    part[training] = fold
    targets = torch.from_numpy(sketch - sketch.mean(axis=0))
    candidates = [(token,) for token in range(vectors.shape[1])]
    candidates += [(0, 1)] if len(candidates) == 2 else []
    errors = torch.stack([_errors(_scaled(vectors, each, training), training, fold, targets) for each in candidates])
    best = errors.min(dim=1).values.argmin(dim=0)  # the first candidate at a tie
    sources = []
    for index in best.unique().tolist():
        windows = torch.nonzero(best == index)[:, 0]
        l2 = L2_GRID[int(errors[index][:, windows].sum(dim=1).argmin())]
        weights = _weights(_scaled(vectors, candidates[index], training), training, fold, part, l2)
        sources.append(Source(candidates[index], l2, tuple(windows.tolist()), weights))
    return Smoother(sources, part, fold)


def _errors(x: Tensor, training: np.ndarray, fold: np.ndarray, targets: Tensor) -> Tensor:
    """(penalties, windows): squared errors of the projected labels (n, windows, k) on held-out folds."""
    errors = torch.zeros(len(L2_GRID), targets.shape[1], dtype=torch.float64)
    for each in range(TRIED_FOLDS):
        gram, held_out = _Gram(x[training[fold != each]]), targets[fold == each]
        product = gram.product(targets[fold != each].flatten(1))
        for index, l2 in enumerate(L2_GRID):
            predicted = gram.predict(x[training[fold == each]], product, l2).view_as(held_out)
            errors[index] += (predicted - held_out).square().sum(dim=(0, 2))
    return errors


def _weights(x: Tensor, training: np.ndarray, fold: np.ndarray, part: np.ndarray, l2: float) -> np.ndarray:
    """float32 (m, n): see `Source`."""
    weights = np.zeros((len(x), len(training)), np.float32)
    for each in range(FOLDS):
        rows = training[fold == each]
        weights[np.ix_(rows, fold != each)] = _Gram(x[training[fold != each]]).weights(x[rows], l2).numpy()
    unseen = np.flatnonzero(part < 0)
    weights[unseen] = _Gram(x[training]).weights(x[unseen], l2).numpy()
    return weights


def _scaled(vectors: Tensor, tokens: tuple[int, ...], training: np.ndarray) -> Tensor:
    """float64 (m, columns): the tokens side by side, each divided by its root mean square over training histories."""
    x = vectors[:, list(tokens)].double()
    x = x - x[training].mean(dim=0)
    size = x[training].square().mean(dim=(0, 2), keepdim=True).sqrt()
    return (x / torch.where(size > 0, size, 1.0)).flatten(1)


class _Gram:
    """A regression's training rows x (n, d), solved in the smaller of the two dimensions."""

    def __init__(self, x: Tensor) -> None:
        self.mean = x.mean(dim=0)
        self.x = x - self.mean
        self.is_dual = len(x) < x.shape[1]
        self.gram = self.x @ self.x.T if self.is_dual else self.x.T @ self.x

    def factor(self, l2: float) -> Tensor:
        return torch.linalg.cholesky(self.gram + l2 * len(self.x) * torch.eye(len(self.gram), dtype=torch.float64))

    def product(self, targets: Tensor) -> Tensor:
        """What `predict` needs of targets (n, k), whatever the penalty."""
        return targets if self.is_dual else self.x.T @ targets

    def predict(self, asked: Tensor, product: Tensor, l2: float) -> Tensor:
        """(m, k): predictions for `asked` (m, d), beside the mean."""
        solved = torch.cholesky_solve(product, self.factor(l2))
        asked = asked - self.mean
        return asked @ (self.x.T @ solved) if self.is_dual else asked @ solved

    def weights(self, asked: Tensor, l2: float) -> Tensor:
        """float32 (m, n): weights of the training rows' labels in the predictions for `asked` (m, d), beside their
        mean."""
        asked = asked - self.mean
        if self.is_dual:
            return torch.cholesky_solve(self.x @ asked.T, self.factor(l2)).T.float()
        return torch.cholesky_solve(asked.T, self.factor(l2)).T.float() @ self.x.T.float()


def predicted_labels(
    smoother: Smoother, labels: AttributeLabels, history: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) float32 (q, s, windows): predicted labels of the values int32 (q, s) for histories (q,), as the
    mean over training histories and what the vector adds to it; zero where a value is -1 or unknown to training."""
    known = (values >= 0) & (values < len(labels.bounds) - 1)
    values = np.where(known, values, -1).astype(np.int32)
    deviation = np.zeros((*values.shape, labels.label.shape[1]), np.float32)
    for source in smoother.sources:
        windows = list(source.windows)
        deviation[..., windows] = _in_threads(source.weights, labels, windows, history, values)
    sums = labels.sums(smoother.fold, FOLDS)
    total, sizes = sums.sum(axis=0), np.bincount(smoother.fold, minlength=FOLDS)
    mean = np.broadcast_to(total[values], deviation.shape).copy()
    part = smoother.part[history]
    seen = part >= 0
    mean[seen] -= sums[part[seen][:, None], values[seen]]
    mean /= (len(smoother.fold) - np.where(seen, sizes[part], 0))[:, None, None]
    mean[~known] = 0
    return mean, deviation


def _in_threads(
    weights: np.ndarray, labels: AttributeLabels, windows: list[int], history: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """`_predict` for rows in as many threads as numba has; how they are shared out changes nothing."""
    found = np.zeros((*values.shape, len(windows)), np.float32)
    label = np.ascontiguousarray(labels.label[:, windows])
    given, workers = (weights, labels.bounds, labels.history, label), numba.get_num_threads()
    bounds = np.linspace(0, len(history), workers + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(_predict, *given, history[lo:hi], values[lo:hi], found[lo:hi])
            for lo, hi in zip(bounds[:-1], bounds[1:], strict=True)
        ]
        for job in jobs:
            job.result()
    return found


@jit
def _predict(weights, bounds, owners, label, history, values, out):
    """A sampled product: weights · labels at the values asked about, one entry of the sparse labels after the other."""
    windows = label.shape[1]
    for i in range(len(history)):
        row = weights[history[i]]
        for j in range(values.shape[1]):
            value = values[i, j]
            if value < 0:
                continue
            sums = np.zeros(windows, np.float32)
            for entry in range(bounds[value], bounds[value + 1]):
                weight = row[owners[entry]]
                for window in range(windows):
                    sums[window] += label[entry, window] * weight
            out[i, j] = sums


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
