"""The small language model's first lesson: token embeddings under which histories resemble what is asked of them.

A history as a soft vector is the mean of some hundred token embeddings. Under random ones the right option of a
question about interests is nearest to it in 77 of 100 cases (top three), 66 (recent) and 64 (path), and in 26 and 28
where the next item's title or attribute is asked: what a mean of tokens says about items that are not among them is
noise. Two objectives, with the embeddings as their only weights, take that to 82 (top three), 68 (recent), 30 and 30 in
1,500 steps: tell the right option of training questions, and the values of items that follow a history from all other
values. The layers then start with something worth comparing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, normalize

from uqabench.data.catalogue import Catalogue
from uqabench.llm.history import token_bags
from uqabench.questions.kinds import ASKED
from uqabench.questions.render import history_items, value_texts
from uqabench.stages.lm_documents import Documents
from uqabench.stages.lm_vectors import AHEAD

LR = 1e-3
HISTORIES, FOLLOWED = 128, 256  # a step: histories asked about, and histories whose following items are told apart
QUESTION_SHARPNESS, FOLLOWING_SHARPNESS = 10.0, 5.0


def train_embeddings(corpora: Sequence[Documents], steps: int, seed: int) -> float:
    """Train the model's embedding table in place, keeping its root mean square; returns the share (%) of the last
    steps' questions for which the right option was nearest.

    Adam with a learning rate that decays to zero over `steps` (0: the table stays as it is). Questions about counts
    and places are left out: a mean knows neither. Question sets take turns.
    """
    weight = corpora[0].lm.model.get_input_embeddings().weight
    size = weight.detach().square().mean().sqrt()
    if steps == 0:
        return 0.0
    rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
    nearest, following = [NearestOption(documents, rng) for documents in corpora], FollowingItem(corpora[0], rng)
    nearest = [loss for loss in nearest if loss.asked]
    if not nearest:
        return 0.0
    sharpness = [parameter for loss in (*nearest, following) for parameter in loss.parameters()]
    optimizer = torch.optim.Adam([{"params": [weight]}, {"params": sharpness, "lr": 0.01}], lr=LR)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * (1 - step / steps)
        optimizer.zero_grad()
        (nearest[step % len(nearest)](weight) + following(weight)).backward()
        optimizer.step()
    with torch.no_grad():
        weight.mul_(size / weight.square().mean().sqrt())
    return 100.0 * float(np.mean([share for loss in nearest for share in loss.right[-50:]]))


class NearestOption(nn.Module):
    """Cross entropy of the right option among four by likeness to the history."""

    def __init__(self, documents: Documents, rng: np.random.Generator) -> None:
        super().__init__()
        self.documents, self.rng = documents, rng
        rows = [row[documents.for_vectors[row]] for row in documents.rows[: documents.n_train]]
        self.asked = [(pair, row) for pair, row in enumerate(rows) if len(row)]
        self.log_sharpness = nn.Parameter(torch.tensor(QUESTION_SHARPNESS).log())
        self.right: list[float] = []

    def forward(self, weight: Tensor) -> Tensor:
        documents = self.documents
        chosen = self.rng.choice(len(self.asked), min(HISTORIES, len(self.asked)), replace=False)
        rows = np.concatenate([self.asked[i][1] for i in chosen])
        owner = torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(self.asked[i][1]) for i in chosen]))
        pairs = documents.pairs[[self.asked[i][0] for i in chosen]]
        histories = _likeness_vectors(documents, weight, pairs)
        bags = token_bags([ids for row in rows for ids in documents.option_tokens(int(row))])
        options = embedding_bag(bags[0], weight, bags[1], mode="mean").view(len(rows), -1, weight.shape[1])
        options = options / _length(weight)
        logits = self.log_sharpness.exp() * (histories.index_select(0, owner)[:, None] * options).sum(-1)
        answers = torch.from_numpy(documents.questions.answer[rows].astype(np.int64))
        self.right.append(float((logits.argmax(1) == answers).float().mean()))
        return cross_entropy(logits, answers)


class FollowingItem(nn.Module):
    """Cross entropy of a following item's title, category, brand and shop among all of their kind.

    Scores are log popularity plus likeness to the history, so that the embeddings need not know what is popular.
    """

    def __init__(self, documents: Documents, rng: np.random.Generator) -> None:
        super().__init__()
        self.documents, self.rng = documents, rng
        store, catalogue = documents.store, documents.store.catalogue
        users = np.unique(documents.pairs[: documents.n_train, 0])
        self.least = int(documents.pairs[:, 1].min())
        self.users = users[store.lengths[users] > self.least]
        self.attributes = [name for name in ASKED if name in catalogue.attributes()]
        self.values = [token_bags(documents.lm.encode_data(value_texts(catalogue, name))) for name in self.attributes]
        self.log_share = [_log_share(catalogue, name) for name in self.attributes]
        self.log_sharpness = nn.Parameter(torch.full((len(self.attributes),), FOLLOWING_SHARPNESS).log())

    def forward(self, weight: Tensor) -> Tensor:
        pairs, items = self._draw()
        histories = _likeness_vectors(self.documents, weight, pairs)
        losses = []
        for i, name in enumerate(self.attributes):
            codes = self.documents.store.catalogue.codes[name][items]
            known = np.flatnonzero(codes >= 0)
            if len(known) == 0:
                continue
            ids, starts = self.values[i]
            values = embedding_bag(ids, weight, starts, mode="mean") / _length(weight)
            likeness = histories[torch.from_numpy(known)] @ values.T
            logits = self.log_sharpness[i].exp() * likeness + self.log_share[i]
            losses.append(cross_entropy(logits, torch.from_numpy(codes[known].astype(np.int64))))
        return torch.stack(losses).sum()

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        """(user, cut) pairs (n, 2) and one of the items that follow each."""
        store = self.documents.store
        users = self.rng.choice(self.users, FOLLOWED)
        lengths = store.lengths[users]
        cuts = self.rng.integers(self.least, lengths)
        ahead = np.minimum(cuts + self.rng.integers(0, AHEAD, FOLLOWED), lengths - 1)
        return np.stack([users, cuts], axis=1), store.items[store.offsets[users] + ahead]


def _log_share(catalogue: Catalogue, attribute: str) -> Tensor:
    """Log share (values,) of each of an attribute's values in all interactions of training users."""
    codes, n_values = catalogue.codes[attribute], len(catalogue.values[attribute])
    known = codes >= 0
    counts = 1.0 + np.bincount(codes[known], weights=catalogue.popularity[known], minlength=n_values)
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def _length(weight: Tensor) -> Tensor:
    """A token embedding's usual length."""
    return weight.detach().square().sum(1).mean().sqrt()


def _likeness_vectors(documents: Documents, weight: Tensor, pairs: np.ndarray) -> Tensor:
    """Unit vectors (n, width): mean token embeddings of the histories of (user, cut) pairs (n, 2), centred."""
    n_history = documents.questions.n_history
    histories = [history_items(documents.store, int(user), int(cut), n_history) for user, cut in pairs]
    ids, starts = documents.vectors.tokens.bags(histories)
    means = embedding_bag(ids, weight, starts, mode="mean")
    return normalize(means - means.mean(0), dim=1)
