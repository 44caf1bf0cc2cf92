"""What the small language model reads of exact history vectors, and what a linear probe reads of the same ones."""

from __future__ import annotations

import numpy as np
import torch

from uqabench.integrations import NEXT
from uqabench.llm.batches import batch_hidden, collate, letter_logits, plan_group_batches
from uqabench.questions.judges.model import FEWEST
from uqabench.stages.lm_documents import DocumentBatch, Documents, Windows, token_windows
from uqabench.stages.probe import read_answers
from uqabench.stages.states import HistoryPairs
from uqabench.vocabulary import SUBTASKS

Accuracy = dict[str, float]
PROBED = 6_000
"""Training questions, at most, that the probe learns from: as many as a run has to align with."""


def held_out_accuracy(documents: Documents) -> dict[str, Accuracy]:
    """Accuracy (percent) by sub-task on the held-out documents, for every way in which the model was shown a history.

    `probe NAME` is what a probe reads of the vectors that the model was shown under NAME. What comes next has no exact
    vector but the future, so that integrations which ask for it are left out.
    """
    config = documents.config
    layouts = {name: token_windows(name) for name in config.integrations}
    layouts = {name: windows for name, windows in layouts.items() if NEXT not in windows}
    return {
        **{f"text{n}": model_accuracy(documents, n, ()) for n in sorted(set(config.text_lengths))},
        **{name: model_accuracy(documents, 0, windows) for name, windows in layouts.items()},
        **{f"probe {name}": probe_accuracy(documents, windows) for name, windows in layouts.items()},
        "no-history": model_accuracy(documents, 0, ()),
    }


def model_accuracy(documents: Documents, n_text: int, windows: Windows) -> Accuracy:
    """What the model answers when it is shown `n_text` items or exact vectors (which are asked what they can know)."""
    lm = documents.lm
    documents.hint = 0.0
    held_out = np.arange(documents.n_train, len(documents.pairs))
    groups = documents.groups(held_out, n_text, windows)
    if not groups:
        return {"n": 0}
    documents.vectors.measure([documents.shown(pair) for pair in held_out], windows)
    right, asked = [], []
    with torch.no_grad():
        for part in plan_group_batches(groups, documents.config.token_budget):
            soft, renumbered = documents.soft(DocumentBatch(documents, part, windows), noise=0.0)
            batch = collate(renumbered, lm, len(windows), with_answers=False)
            logits = letter_logits(lm, batch, batch_hidden(lm, batch, soft))
            right.append((logits.argmax(1) == batch.answers).numpy())
            asked.append(batch.questions.numpy())
    rows = np.concatenate(asked)
    return _by_subtask(documents.questions.subtask[rows], np.concatenate(right))


def probe_accuracy(documents: Documents, windows: Windows) -> Accuracy:
    """What a linear probe, fitted on questions about training documents, reads of exact vectors of held-out ones."""
    questions = documents.questions
    askable = np.flatnonzero(documents.answerable(windows))
    is_known = documents.owner[askable] < documents.n_train
    learned = np.bincount(questions.subtask[askable[is_known]], minlength=len(SUBTASKS)) >= FEWEST
    askable, is_known = (part[learned[questions.subtask[askable]]] for part in (askable, is_known))
    known, held_out = askable[is_known], askable[~is_known]
    if not len(held_out):
        return {"n": 0}
    rng = np.random.Generator(np.random.Philox(key=[documents.config.seed, 3]))
    known = np.sort(rng.choice(known, min(PROBED, len(known)), replace=False))
    train, asked = questions.select(known), questions.select(held_out)
    pairs = HistoryPairs.of([train, asked])
    documents.measure_vectors()
    shown = [documents.shown_at(user, cut) for user, cut in zip(pairs.users, pairs.cuts, strict=True)]
    with torch.no_grad():
        parts = np.array_split(np.arange(len(shown)), -(-len(shown) // 256))
        vectors = torch.cat([documents.vectors.of([shown[i] for i in part], windows) for part in parts])
    letters, _ = read_answers(documents.store, train, asked, pairs, vectors)
    return _by_subtask(asked.subtask, letters == asked.answer)


def _by_subtask(subtask: np.ndarray, right: np.ndarray) -> Accuracy:
    result = {"overall": 100.0 * float(right.mean()), "n": len(right)}
    for index, name in enumerate(SUBTASKS):
        mine = subtask == index
        if mine.any():
            result[name] = 100.0 * float(right[mine].mean())
    return result
