"""Training documents of the small language model: one history, several questions about it, in the order of learning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from uqabench.config import require_least
from uqabench.data.catalogue import ATTRIBUTES
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.llm.batches import PromptGroup, group_prompts, plan_group_batches
from uqabench.llm.demo import SmallLMConfig
from uqabench.llm.history import HistoryTokens, history_vectors
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT, PromptBuilder
from uqabench.questions.kinds import SI_RECENT
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import format_question, history_items
from uqabench.stages.training import OptimConfig

# Relative to the vector's own size: the cosine to the clean embedding is then 1 / sqrt(1 + 2²) = 0.45.
MOST_EXERCISE_NOISE = 2.0


@dataclass(frozen=True)
class TrainLMConfig:
    """Training of the small language model.

    text_lengths: items shown when the history is text. soft_share, empty_share: shares of documents with a soft
    vector and with no history. noise: largest relative noise added to the soft vectors. text_weight: weight of
    next-token prediction on all text. token_budget: padded tokens a step. documents_a_round: documents drawn and
    batched together. letter_rounds: first rounds, of 20 steps of pure matching (name the letter of the given value);
    with everything else at once that takes thousands of steps to be found. vector_rounds: the same with the value as a
    soft vector. easy_rounds: the rounds after them, with
    soft vectors and questions about categories only, whose few values show the model sooner that options answer
    histories. held_out_users:
    training users whose documents only measure accuracy. Steps are set by optim.max_steps.
    """

    model: SmallLMConfig = field(default_factory=SmallLMConfig)
    text_lengths: tuple[int, ...] = (20, 20, 50)
    soft_share: float = 0.6
    empty_share: float = 0.05
    noise: float = 0.5
    text_weight: float = 0.0
    token_budget: int = 4_096
    documents_a_round: int = 512
    letter_rounds: int = 20
    vector_rounds: int = 20
    easy_rounds: int = 10
    held_out_users: int = 60
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3, epochs=1_000, max_steps=2_000))
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"token_budget": 1, "documents_a_round": 1, "held_out_users": 1, "seed": 0}
        require_least(self, least, "llm.train")


class Documents:
    """Training documents drawn round by round from one question set."""

    def __init__(
        self,
        lm: LanguageModel,
        store: InteractionStore,
        questions: QuestionSet,
        builder: PromptBuilder,
        config: TrainLMConfig,
    ) -> None:
        self.lm, self.store, self.questions, self.builder, self.config = lm, store, questions, builder, config
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
        self.easy = questions.attribute == ATTRIBUTES.index("category")
        self.tokens = HistoryTokens(lm, builder)

    def batches(self, round_index: int) -> list[list[PromptGroup]]:
        """One round of documents, batched; a group's key is its (user, cut) pair."""
        config = self.config
        rng = np.random.Generator(np.random.Philox(key=[config.seed, round_index]))
        if round_index < config.letter_rounds:
            return self.letter_exercises(rng)
        round_index -= config.letter_rounds
        if round_index < config.vector_rounds:
            self.exercise_noise = MOST_EXERCISE_NOISE * round_index / config.vector_rounds
            return self.letter_exercises(rng, soft=True)
        round_index -= config.vector_rounds
        size = max(1, min(config.documents_a_round, self.n_train))
        rounds = max(1, self.n_train // size)
        shuffle = np.random.Generator(np.random.Philox(key=[config.seed, 2**32 + round_index // rounds]))
        chosen = shuffle.permutation(self.n_train)[(round_index % rounds) * size :][:size]
        mode = rng.random(len(chosen))
        lengths = rng.choice(config.text_lengths, len(chosen))
        easy = round_index < config.easy_rounds
        soft_share = 1.0 if easy else config.soft_share
        n_text = np.where(mode < soft_share + config.empty_share, 0, lengths)
        groups: list[PromptGroup] = []
        for n in np.unique(n_text):
            for soft in (False, True):
                picked = chosen[(n_text == n) & ((mode < soft_share) == soft)]
                if len(picked):
                    groups += self.lessons(picked, int(n), int(soft), easy=easy)
        return plan_group_batches(groups, config.token_budget, rng=rng)

    def letter_exercises(
        self, rng: np.random.Generator, *, soft: bool = False, steps: int = 20, size: int = 96
    ) -> list[list[PromptGroup]]:
        """Batches without history: a category (or title) is given, asked is the letter of the option that names it.

        It is given in words, or with `soft` as a soft vector: its own embedding, under noise that grows from round to
        round until it resembles its category as little as a history's vector does. Keys count down from -1 then.
        """
        catalogue = self.store.catalogue
        values = next(catalogue.values[a] for a in ("category", *ATTRIBUTES) if len(catalogue.values[a]) >= 4)
        form = self.builder.question(self.questions, int(np.flatnonzero(self.questions.kind == SI_RECENT)[0]))
        if soft:
            self.named = [np.array(ids, dtype=np.int64) for ids in self.lm.encode(list(values))]
        batches = []
        for _ in range(steps):
            options = np.array([rng.choice(len(values), len(form.options), replace=False) for _ in range(size)])
            answers = rng.integers(len(form.options), size=size)
            right = options[np.arange(size), answers]
            contents = [
                format_question(
                    replace(
                        form,
                        question=form.question if soft else values[value],
                        options=[values[v] for v in row],
                        instruction="",
                    )
                )
                for row, value in zip(options, right, strict=True)
            ]
            rows = np.arange(size) % len(self.questions)  # an exercise is about nobody: any rows will do
            prompts = self.builder.encode_contents(self.questions, rows, contents, n_text=0, n_soft=int(soft))
            groups = group_prompts(prompts, np.arange(size), answers, rows)
            if soft:
                groups = [replace(group, key=-1 - int(right[group.key])) for group in groups]
            batches.append(groups)
        return batches

    def groups(self, pairs: np.ndarray, n_text: int, n_soft: int) -> list[PromptGroup]:
        """The questions of the given pairs, as they will be asked."""
        rows = np.concatenate([self.rows[pair] for pair in pairs])
        prompts = self.builder.encode(self.questions, rows, n_text=n_text, n_soft=n_soft)
        return group_prompts(prompts, self.owner[rows], self.questions.answer[rows], rows)

    def lessons(self, pairs: np.ndarray, n_text: int, n_soft: int, *, easy: bool) -> list[PromptGroup]:
        """The questions of the given pairs for training: as they will be asked, without their options (the answer is
        the option's text), and once a pair the exercise of naming the letter of a given option.

        With letters alone the model stays at chance for hundreds of steps: to answer it has to know the text of the
        answer and to find its letter, and neither half pays before the other.
        """
        rows = np.concatenate([self.rows[pair] for pair in pairs])
        if easy and self.easy[rows].any():
            rows = rows[self.easy[rows]]
        asked = [self.builder.question(self.questions, int(row)) for row in rows]
        right = [q.options[answer] for q, answer in zip(asked, self.questions.answer[rows], strict=True)]
        letters = [self.lm.answer_ids[answer] for answer in self.questions.answer[rows]]
        end = self.lm.answer_ids[0][1:]
        texts = [ids + end for ids in self.lm.encode(right)]
        first = np.flatnonzero(np.diff(self.owner[rows], prepend=-1))
        contents = [format_question(q) for q in asked]
        contents += ["\n".join([q.question, q.cue]) for q in asked]
        contents += [format_question(replace(asked[i], question=right[i], instruction="")) for i in first]
        source = np.concatenate([np.arange(len(rows)), np.arange(len(rows)), first])
        targets = letters + texts + [letters[i] for i in first]
        prompts = self.builder.encode_contents(self.questions, rows[source], contents, n_text=n_text, n_soft=n_soft)
        numbers = rows[source]
        keys, answers = self.owner[numbers], self.questions.answer[numbers]
        return group_prompts(prompts, keys, answers, numbers, targets=targets, max_questions=32)

    def soft(self, groups: list[PromptGroup], noise: float) -> tuple[Tensor | None, list[PromptGroup]]:
        """Noisy history vectors of the groups with a soft slot, and the groups renumbered to index them."""
        slots = [i for i, group in enumerate(groups) if SOFT in group.prefix]
        if not slots:
            return None, groups
        weight = self.lm.model.get_input_embeddings().weight
        rms = weight.detach().square().mean().sqrt()
        keys = [groups[i].key for i in slots]
        if keys[0] < 0:
            named = torch.stack([weight[torch.from_numpy(self.named[-1 - key])].mean(0) for key in keys])
            vectors = named * (rms / named.detach().square().mean(1, keepdim=True).sqrt())
            vectors = vectors + self.exercise_noise * rms * torch.randn(vectors.shape)
        else:
            histories = [
                history_items(self.store, int(user), int(cut), self.questions.n_history)
                for user, cut in self.pairs[keys]
            ]
            vectors = history_vectors(weight, *self.tokens.bags(histories))
            vectors = vectors + torch.rand(len(slots), 1) * noise * rms * torch.randn(vectors.shape)
        renumbered = list(groups)
        for place, i in enumerate(slots):
            renumbered[i] = replace(groups[i], key=place)
        return vectors, renumbered
