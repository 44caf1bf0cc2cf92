"""Training documents of the small language model: one history, several questions about it, in the order of learning."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.integrations import Window, find_integration
from uqabench.integrations.linear import WindowTokens
from uqabench.llm.batches import PromptGroup, group_prompts, plan_group_batches
from uqabench.llm.history import window_marker
from uqabench.llm.prompts import PromptBuilder
from uqabench.questions.kinds import KINDS, OPTIONS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import format_question, history_items
from uqabench.questions.tables import equal_texts
from uqabench.settings.llm import TrainLMConfig
from uqabench.stages.lm_vectors import AHEAD, Shown, SoftVectors, scaled

Windows = tuple[Window, ...]
WHOLE: Windows = (None,)
MEASURED = 512
"""Documents, at most, from which mean and covariance of soft vectors are taken."""


@dataclass(frozen=True)
class DocumentBatch:
    """Documents of one step, whose histories are shown alike: a soft vector for each of `windows`, or none (text)."""

    source: Documents
    groups: list[PromptGroup]
    windows: Windows = ()


class Documents:
    """Training documents drawn round by round from one question set."""

    def __init__(
        self,
        vectors: SoftVectors,
        store: InteractionStore,
        questions: QuestionSet,
        builder: PromptBuilder,
        config: TrainLMConfig,
    ) -> None:
        self.vectors, self.lm = vectors, vectors.lm
        self.store, self.questions, self.builder, self.config = store, questions, builder, config
        pairs, owner = np.unique(np.stack([questions.user, questions.cut], axis=1), axis=0, return_inverse=True)
        self.pairs, self.owner = pairs, owner.ravel()
        # Documents of the last few training users measure accuracy and are never trained on.
        users = np.unique(pairs[:, 0])
        if config.held_out_users >= len(users):
            raise InputError(
                f"llm.train.held_out_users is {config.held_out_users}, but the questions are about {len(users)} users: "
                "hold out fewer, or ask about more."
            )
        self.n_train = int(np.searchsorted(pairs[:, 0], users[-config.held_out_users]))
        order = np.argsort(self.owner, kind="stable")
        bounds = np.searchsorted(self.owner[order], np.arange(len(pairs) + 1))
        self.rows = [order[bounds[i] : bounds[i + 1]] for i in range(len(pairs))]
        # A vector of the whole history knows neither counts nor positions; a hint cannot show a count.
        self.for_vectors = np.array([KINDS[kind].unordered_history for kind in questions.kind])
        self.for_hints = np.array([not KINDS[kind].counts for kind in questions.kind])
        self.codes = equal_texts(store.catalogue)
        self.layouts = [token_windows(name) for name in config.integrations]
        self.windows = tuple(dict.fromkeys(window for layout in (WHOLE, *self.layouts) for window in layout))
        self.hint = 0.0
        self._separators = {token for ids in self.lm.encode(["; ", " → ", " (no change)"]) for token in ids}
        self._options: dict[int, list[np.ndarray]] = {}

    def batches(self, round_index: int) -> list[DocumentBatch]:
        """One round of documents, batched; a group's key is its (user, cut) pair."""
        config = self.config
        rng = np.random.Generator(np.random.Philox(key=[config.seed, round_index]))
        self.hint = self.hint_weight(round_index)
        size = max(1, min(config.documents_a_round, self.n_train))
        rounds = max(1, self.n_train // size)
        shuffle = np.random.Generator(np.random.Philox(key=[config.seed, 2**32 + round_index // rounds]))
        chosen = shuffle.permutation(self.n_train)[(round_index % rounds) * size :][:size]
        mode = rng.random(len(chosen))
        soft = mode < config.soft_share
        layout = rng.integers(len(self.layouts), size=len(chosen))
        shown: list[tuple[Windows, list[PromptGroup]]] = []
        if self.hint > 0:
            shown.append(((), self.hinted_texts(chosen[~soft], rng)))
            for index, windows in enumerate(self.layouts):
                shown.append((windows, self.hinted_vectors(chosen[soft & (layout == index)], windows, rng)))
        else:
            lengths = rng.choice(config.text_lengths, len(chosen))
            n_text = np.where(mode < config.soft_share + config.empty_share, 0, lengths)
            for n in np.unique(n_text[~soft]):
                shown.append(((), self.groups(chosen[(n_text == n) & ~soft], int(n))))
            for index, windows in enumerate(self.layouts):
                shown.append((windows, self.groups(chosen[soft & (layout == index)], 0, windows)))
        batches = [
            DocumentBatch(self, part, windows)
            for windows, groups in shown
            for part in plan_group_batches(groups, config.token_budget, rng=rng)
        ]
        return [batches[i] for i in rng.permutation(len(batches))]

    def measure_vectors(self) -> None:
        """Take the moments of soft vectors from a sample of the training documents, under the embeddings of now."""
        sample = np.linspace(0, self.n_train - 1, min(self.n_train, MEASURED), dtype=np.int64)
        self.vectors.measure([self.shown(pair) for pair in sample], self.windows)

    def shown(self, pair: int) -> Shown:
        """What vectors of a document's history are made of."""
        return self.shown_at(*self.pairs[pair])

    def shown_at(self, user: int, cut: int) -> Shown:
        """What vectors of a user's history at a cut are made of."""
        user, cut = int(user), int(cut)
        begin, end = self.store.offsets[user : user + 2]
        following = self.store.items[begin + cut : min(begin + cut + AHEAD, end)]
        return Shown(history_items(self.store, user, cut, self.questions.n_history), following)

    def hint_weight(self, round_index: int) -> float:
        """Share of the right answer's own embedding in the soft vectors of a round: 1, then falling, then 0."""
        faded = round_index - self.config.hint_rounds
        if faded < 0:
            return 1.0
        return max(0.0, 1.0 - (faded + 1) / (self.config.fade_rounds + 1))

    def groups(self, pairs: np.ndarray, n_text: int, windows: Windows = ()) -> list[PromptGroup]:
        """The questions of the given pairs as they will be asked; with vectors, those that these can answer."""
        if len(pairs) == 0:
            return []
        rows = np.concatenate([self.rows[pair] for pair in pairs])
        if windows:
            rows = rows[self.answerable(windows)[rows]]
        if len(rows) == 0:
            return []
        return self._grouped(rows, self.builder.encode(self.questions, rows, n_text=n_text, n_soft=len(windows)))

    def answerable(self, windows: Windows) -> np.ndarray:
        """Boolean (Q,): the questions that vectors of these windows can answer. The whole history alone knows no
        positions; counts are in none."""
        return self.for_vectors if windows == WHOLE else self.for_hints

    def _grouped(self, rows: np.ndarray, prompts: list[np.ndarray]) -> list[PromptGroup]:
        return group_prompts(prompts, self.owner[rows], self.questions.answer[rows], rows)

    def hinted_vectors(self, pairs: np.ndarray, windows: Windows, rng: np.random.Generator) -> list[PromptGroup]:
        """One question a pair about vectors, which `soft` will shift towards the right answer."""
        rows = self._draw_each(pairs, self.answerable(windows), rng)
        if len(rows) == 0:
            return []
        return self._grouped(rows, self.builder.encode(self.questions, rows, n_soft=len(windows)))

    def hinted_texts(self, pairs: np.ndarray, rng: np.random.Generator) -> list[PromptGroup]:
        """One question a pair about a text in which the right answer's values occur and the wrong ones' do not."""
        rows = self._draw_each(pairs, self.for_hints, rng)
        if len(rows) == 0:
            return []
        contents = []
        for row in rows:
            asked = format_question(self.builder.question(self.questions, int(row)))
            contents.append(self.builder.items_text(self._hinted_items(int(row), rng)) + "\n" + asked)
        return self._grouped(rows, self.builder.encode_contents(self.questions, rows, contents, n_text=0, n_soft=0))

    def _draw_each(self, pairs: np.ndarray, usable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        members = [self.rows[pair][usable[self.rows[pair]]] for pair in pairs]
        return np.array([rng.choice(rows) for rows in members if len(rows)], dtype=np.int64)

    def _hinted_items(self, row: int, rng: np.random.Generator) -> np.ndarray:
        questions = self.questions
        codes = self.codes[questions.attribute[row]]
        options = [set(questions.option(row, place)) for place in range(OPTIONS)]
        right = options[int(questions.answer[row])]
        history = history_items(self.store, int(questions.user[row]), int(questions.cut[row]), questions.n_history)
        shown = []
        for value in right:
            having = history[codes[history] == value]
            shown.append(rng.choice(having if len(having) else np.flatnonzero(codes == value)))
        others = history[~np.isin(codes[history], list(set().union(*options)))]
        n_others = min(len(others), round((1 - self.hint) * np.median(self.config.text_lengths)))
        return rng.permutation(np.concatenate([shown, rng.choice(others, n_others, replace=False)]).astype(np.int64))

    def option_tokens(self, row: int) -> list[np.ndarray]:
        """Token ids of each option of a question, without what stands between the values of a list."""
        if row not in self._options:
            encoded = self.lm.encode_data(self.builder.question(self.questions, row).options)
            self._options[row] = [
                np.array([i for i in ids if i not in self._separators], dtype=np.int64) for ids in encoded
            ]
        return self._options[row]

    def soft(self, batch: DocumentBatch, noise: float) -> tuple[Tensor | None, list[PromptGroup]]:
        """Noisy vectors of a batch's histories (groups · windows, width), and the groups renumbered to index them."""
        if not batch.windows:
            return None, batch.groups
        vectors = self.vectors.of([self.shown(group.key) for group in batch.groups], batch.windows)
        if self.hint > 0:
            weight = self.vectors.weight
            hints = scaled(torch.stack([self._right_answer(weight, group) for group in batch.groups]), self.vectors.rms)
            vectors = scaled((1 - self.hint) * vectors + self.hint * hints[:, None], self.vectors.rms)
        elif noise:
            vectors = self.vectors.as_regressed(vectors, batch.windows, noise)
        vectors = vectors + torch.stack([window_marker(self.lm, window) for window in batch.windows])
        renumbered = [replace(group, key=place) for place, group in enumerate(batch.groups)]
        return vectors.flatten(0, 1), renumbered

    def _right_answer(self, weight: Tensor, group: PromptGroup) -> Tensor:
        ids = self.option_tokens(group.questions[0])[group.answers[0]]
        return weight[torch.from_numpy(ids)].mean(0)


def token_windows(integration: str) -> Windows:
    """The windows of an integration each of whose soft tokens is the mean of one."""
    found = find_integration(integration)
    if not isinstance(found, WindowTokens):
        raise InputError(
            f"llm.train.integrations has {integration}, whose tokens are no means of windows: choose mean-pooling, "
            "last, mean+last or segments."
        )
    return found.windows
