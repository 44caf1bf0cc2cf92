"""The small language model's first lesson: token embeddings under which histories resemble the right options.

A history as a soft vector is the mean of some hundred token embeddings. Under random ones the right option of a
question about interests is nearest to it in 77 of 100 cases (top three), 66 (recent) and 64 (path); a classifier that
has the embeddings as its only weights takes a quarter of a minute to learn ones that give 87, 70 and 67. The layers
then start with something worth comparing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, normalize

from uqabench.questions.kinds import KINDS
from uqabench.questions.render import history_items
from uqabench.stages.lm_documents import Documents

START_SHARPNESS, LR, HISTORIES_A_STEP = 10.0, 1e-3, 128


def train_embeddings(documents: Documents, steps: int, seed: int) -> float:
    """Train the model's embedding table in place, keeping its root mean square; returns the last steps' accuracy (%).

    Adam with a learning rate that decays to zero over `steps` (0: the table stays as it is).

    Questions about counts and places are left out: a mean knows neither.
    """
    weight = documents.lm.model.get_input_embeddings().weight
    size = weight.detach().square().mean().sqrt()
    rows = [row[_about_interests(documents, row)] for row in documents.rows[: documents.n_train]]
    usable = np.flatnonzero([len(row) > 0 for row in rows])
    if steps == 0 or len(usable) < 2:
        return 0.0
    sharpness = nn.Parameter(torch.tensor(START_SHARPNESS).log())
    optimizer = torch.optim.Adam([{"params": [weight]}, {"params": [sharpness], "lr": 0.01}], lr=LR)
    rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
    right: list[float] = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * (1 - step / steps)
        chosen = rng.choice(usable, min(HISTORIES_A_STEP, len(usable)), replace=False)
        asked = np.concatenate([rows[i] for i in chosen])
        owner = torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(rows[i]) for i in chosen]))
        histories = _history_means(documents, weight, chosen)
        histories = normalize(histories - histories.mean(0), dim=1)
        options = _option_means(documents, weight, asked) / size
        logits = sharpness.exp() * (histories.index_select(0, owner)[:, None] * options).sum(-1)
        answers = torch.from_numpy(documents.questions.answer[asked].astype(np.int64))
        optimizer.zero_grad()
        cross_entropy(logits, answers).backward()
        optimizer.step()
        right.append(float((logits.argmax(1) == answers).float().mean()))
    with torch.no_grad():
        weight.mul_(size / weight.square().mean().sqrt())
    return 100.0 * float(np.mean(right[-50:]))


def _about_interests(documents: Documents, rows: np.ndarray) -> np.ndarray:
    questions = documents.questions
    return np.array([KINDS[questions.kind[row]].subtask not in ("df", "mf") for row in rows], dtype=bool)


def _history_means(documents: Documents, weight: Tensor, pairs: np.ndarray) -> Tensor:
    histories = [
        history_items(documents.store, *map(int, documents.pairs[pair]), documents.questions.n_history)
        for pair in pairs
    ]
    ids, starts = documents.tokens.bags(histories)
    return embedding_bag(ids, weight, starts, mode="mean")


def _option_means(documents: Documents, weight: Tensor, rows: np.ndarray) -> Tensor:
    """(Q, 4, width): mean token embedding of each option's values."""
    bags = [ids for row in rows for ids in documents.option_tokens(int(row))]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in bags])[:-1]])
    vectors = embedding_bag(torch.from_numpy(np.concatenate(bags)), weight, torch.from_numpy(starts), mode="mean")
    return vectors.view(len(rows), -1, weight.shape[1])
