"""What a linear probe reads from an embedding: where between encoder and answer the user is lost.

A ridge regression maps vectors to labels of training users' histories, and a conditional logit for each sub-task maps
the labels predicted for the options to an answer; both know training questions only. What a linear map finds is a lower
bound of what the vector holds.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqabench.artifact import Artifact, Stage
from uqabench.data.store import InteractionStore
from uqabench.files import write_json
from uqabench.questions.declaration import ASKED, OPTIONS
from uqabench.questions.judges import can_learn
from uqabench.questions.questions import QuestionSet
from uqabench.settings.stages import AlignConfig
from uqabench.stages.align import Context, PromptedMethod, load_aligned
from uqabench.stages.evaluate import Answers, write_answers
from uqabench.stages.probe_features import IS_COUNT, option_features
from uqabench.stages.probe_labels import INDEX, WINDOWS, window_labels
from uqabench.stages.probe_reader import FOLDS, Smoother, fit_logit, fit_smoother, predicted_labels
from uqabench.stages.question_sets import torch_threads_kept
from uqabench.stages.states import FrozenStates, HistoryPairs
from uqabench.vocabulary import SUBTASKS

SKETCH_SEED = 0


def probe_states(
    store: InteractionStore, train: QuestionSet, evaluation: QuestionSet, states: Artifact, questions: str, seed: int
) -> Stage:
    """A probe of the pooled vectors in `states`, all of a history's together; `questions`: their content hash."""

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        frozen = FrozenStates.open(states)
        vectors = torch.from_numpy(np.array(frozen.pooled))
        _write(folder, store, train, evaluation, frozen.pairs, vectors, seed)
        return time.monotonic() - started

    inputs = {"data": store.content_hash, "questions": questions, "states": states.content}
    return Stage("probe", {"of": "states", "seed": seed}, inputs, make)


def probe_tokens(context: Context, method: PromptedMethod, aligned: Artifact, config: AlignConfig, seed: int) -> Stage:
    """A probe of a method's soft tokens as `aligned` makes them."""

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        _, soft = load_aligned(context, method, aligned, config)
        pairs = method.states.pairs
        with torch.no_grad():
            parts = np.array_split(np.arange(len(pairs)), -(-len(pairs) // 256))
            vectors = torch.cat([soft(part).view(len(part), soft.n_tokens, -1).float().cpu() for part in parts])
        _write(folder, context.store, context.train, context.evaluation, pairs, vectors, seed)
        return time.monotonic() - started

    inputs = {**context.inputs, "states": method.states_content, "align": aligned.content}
    return Stage("probe", {"of": "soft tokens", "seed": seed}, inputs, make)


def _write(
    folder: Path,
    store: InteractionStore,
    train: QuestionSet,
    evaluation: QuestionSet,
    pairs: HistoryPairs,
    vectors: Tensor,
    seed: int,
) -> None:
    letters, facts = read_answers(store, train, evaluation, pairs, vectors)
    answers = Answers(letters, np.zeros(len(evaluation), np.int64))
    write_answers(folder, evaluation, "probe", answers, seed)
    write_json(folder / "probe.json", {"tokens": vectors.shape[1], "width": vectors.shape[2], **facts})


def read_answers(
    store: InteractionStore, train: QuestionSet, evaluation: QuestionSet, pairs: HistoryPairs, vectors: Tensor
) -> tuple[np.ndarray, dict[str, Any]]:
    """int64 (Q,) the options that the probe takes for `evaluation`, and what its regressions read by window.

    vectors float (G, tokens, width) of the histories of `pairs`. No answer of `evaluation` is read.
    """
    with torch_threads_kept():
        return _read_answers(store, train, evaluation, pairs, vectors)


def _read_answers(
    store: InteractionStore, train: QuestionSet, evaluation: QuestionSet, pairs: HistoryPairs, vectors: Tensor
) -> tuple[np.ndarray, dict[str, Any]]:
    training = np.unique(pairs.keys(train))
    users = pairs.users[training]
    known = HistoryPairs(users, pairs.cuts[training], pairs.starts[training])
    labels = window_labels(store, known)
    rng = np.random.Generator(np.random.Philox(key=[SKETCH_SEED, 0]))
    sketch = sum(own.sketch(len(training), rng) for own in labels)
    smoother = fit_smoother(vectors, training, users, sketch)

    lengths = _predicted_lengths(smoother, known.lengths.astype(np.float32))

    def features(questions: QuestionSet) -> np.ndarray:
        history = pairs.keys(questions)
        mean, deviation = _labels_of_options(questions, history, smoother, labels)
        return option_features(questions, mean, deviation, lengths[history])

    fitted, asked = features(train), features(evaluation)
    letters = np.zeros(len(evaluation), np.int64)
    for subtask in np.unique(evaluation.subtask):
        own, wanted = train.subtask == subtask, evaluation.subtask == subtask
        if not can_learn("probe", SUBTASKS[subtask], int(own.sum())):
            continue
        size = fitted[own].std(axis=(0, 1))
        scale = np.where(size > 1e-12, 1 / np.maximum(size, 1e-12), 0.0)
        weights = fit_logit(fitted[own] * scale, train.answer[own])
        letters[wanted] = (asked[wanted] * scale @ weights).argmax(axis=1)
    regressions = {
        WINDOWS[window]: {"tokens": list(source.tokens), "l2": source.l2}
        for source in smoother.sources
        for window in source.windows
    }
    return letters, {"histories": len(training), "regressions": regressions}


def _labels_of_options(
    questions: QuestionSet, history: np.ndarray, smoother: Smoother, labels: list
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) float64 (Q, 4, 3, windows) of the options' values; of counts, the value that is counted."""
    values = questions.option_values.astype(np.int32)
    is_count = IS_COUNT[questions.kind]
    values[is_count] = -1
    values[is_count, :, 0] = np.where(questions.attribute[is_count] >= 0, questions.params[is_count, 0], -1)[:, None]
    mean, deviation = np.zeros((2, len(questions), OPTIONS, values.shape[2], len(WINDOWS)))
    for attribute in range(len(ASKED)):
        rows = np.flatnonzero(questions.attribute == attribute)
        if len(rows):
            found = predicted_labels(smoother, labels[attribute], history[rows], values[rows].reshape(len(rows), -1))
            mean[rows], deviation[rows] = (part.reshape(len(rows), *mean.shape[1:]) for part in found)
    return mean, deviation


def _predicted_lengths(smoother: Smoother, lengths: np.ndarray) -> np.ndarray:
    """Predicted lengths (G,) of histories, in items."""
    of_others = np.array([lengths[smoother.fold != part].mean() for part in range(-1, FOLDS)])
    whole = next(source for source in smoother.sources if INDEX["all"] in source.windows)
    return of_others[smoother.part + 1] + whole.weights @ lengths
