"""Train the small language model that reads histories and options: questions of training users only.

Each training document is one history and several different questions about it. The history comes as text, as one
soft vector (its mean token embedding, so that a pooled user embedding later finds a model that can use
it), or not at all. Loss: the answers, plus `text_weight` times next-token prediction on all text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from uqabench.config import require_least, to_dict
from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.llm.batches import (
    GroupBatch,
    PromptGroup,
    answer_loss,
    batch_hidden,
    collate,
    group_prompts,
    letter_logits,
    plan_group_batches,
)
from uqabench.llm.demo import SmallLMConfig, new_model, save_model, train_tokenizer
from uqabench.llm.history import HistoryTokens, history_vectors
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT, PromptBuilder, PromptConfig, PromptText
from uqabench.questions.kinds import SUBTASKS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import format_question, history_items
from uqabench.questions.templates import Templates
from uqabench.stages.artifact import Artifact, build
from uqabench.stages.training import OptimConfig, Trainer, seed_everything


@dataclass(frozen=True)
class TrainLMConfig:
    """Training of the small language model.

    text_lengths: items shown when the history is text. soft_share, empty_share: shares of documents with a soft
    vector and with no history. noise: largest relative noise added to the soft vectors. text_weight: weight of
    next-token prediction on all text. token_budget: padded tokens a step. documents_a_round: documents drawn and
    batched together. easy_rounds: first rounds that ask about categories only, whose few values show the model sooner
    that options answer histories. held_out_users: training users whose documents only measure accuracy.
    Steps are set by optim.max_steps.
    """

    model: SmallLMConfig = field(default_factory=SmallLMConfig)
    text_lengths: tuple[int, ...] = (20, 20, 50)
    soft_share: float = 0.6
    empty_share: float = 0.05
    noise: float = 0.5
    text_weight: float = 0.3
    token_budget: int = 4_096
    documents_a_round: int = 512
    easy_rounds: int = 10
    held_out_users: int = 60
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3, epochs=1_000, max_steps=2_000))
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"token_budget": 1, "documents_a_round": 1, "held_out_users": 1, "seed": 0}
        require_least(self, least, "llm.train")


def tokenizer_corpus(catalogue: Catalogue, lines: list[str], contents: list[str]) -> list[str]:
    """Text the tokenizer learns from: every value once, then item lines and questions as often as they occur."""
    values = [value for attribute in catalogue.attributes() for value in catalogue.values[attribute]]
    return values + lines + contents + [str(n) for n in range(1, 513)]


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
        size = max(1, min(config.documents_a_round, self.n_train))
        rounds = max(1, self.n_train // size)
        shuffle = np.random.Generator(np.random.Philox(key=[config.seed, 2**32 + round_index // rounds]))
        chosen = shuffle.permutation(self.n_train)[(round_index % rounds) * size :][:size]
        mode = rng.random(len(chosen))
        lengths = rng.choice(config.text_lengths, len(chosen))
        n_text = np.where(mode < config.soft_share + config.empty_share, 0, lengths)
        groups: list[PromptGroup] = []
        for n in np.unique(n_text):
            for soft in (False, True):
                picked = chosen[(n_text == n) & ((mode < config.soft_share) == soft)]
                if len(picked):
                    groups += self.lessons(picked, int(n), int(soft), easy=round_index < config.easy_rounds)
        return plan_group_batches(groups, config.token_budget, rng=rng)

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
        histories = [
            history_items(self.store, int(user), int(cut), self.questions.n_history)
            for user, cut in self.pairs[[groups[i].key for i in slots]]
        ]
        weight = self.lm.model.get_input_embeddings().weight
        vectors = history_vectors(weight, *self.tokens.bags(histories))
        amount = torch.rand(len(slots), 1) * noise * weight.detach().square().mean().sqrt()
        renumbered = list(groups)
        for place, i in enumerate(slots):
            renumbered[i] = replace(groups[i], key=place)
        return vectors + amount * torch.randn(vectors.shape), renumbered


class LetterWatch:
    """Accuracy of the letters in training batches by sub-task, with a soft vector and without, every 50 batches."""

    def __init__(self, lm: LanguageModel, questions: QuestionSet) -> None:
        self.lm, self.questions = lm, questions
        self.records: list[dict[str, Any]] = []
        self._clear()

    def _clear(self) -> None:
        self.batches, self.right, self.asked = 0, np.zeros((2, len(SUBTASKS))), np.zeros((2, len(SUBTASKS)))

    def add(self, batch: GroupBatch, logits: Tensor) -> None:
        """Count one batch."""
        length = batch.ids.shape[1]
        first = batch.targets[torch.searchsorted(batch.target_at, batch.prompt_end)]
        letter = (first[:, None] == self.lm.letter_ids).any(1).numpy()
        soft = torch.isin(batch.prompt_end // length, batch.soft_at // length).long().numpy()
        place = (soft[letter], self.questions.subtask[batch.questions.numpy()[letter]])
        np.add.at(self.asked, place, 1)
        np.add.at(self.right, place, (logits.argmax(1) == batch.answers).numpy()[letter])
        self.batches += 1
        if self.batches == 50:
            share = 100 * self.right / np.maximum(1, self.asked)
            for name, row in zip(("letters-without-soft", "letters-with-soft"), share, strict=True):
                self.records.append({name: {task: round(x, 1) for task, x in zip(SUBTASKS, row, strict=True)}})
            self._clear()


def text_loss(lm: LanguageModel, batch: GroupBatch, hidden: Tensor) -> Tensor:
    """Next-token cross entropy over the text of a batch (span starts and soft slots excluded), by a sample."""
    length = batch.ids.shape[1]
    follows = batch.position_ids[:, 1:] == batch.position_ids[:, :-1] + 1
    is_soft = torch.zeros(batch.ids.shape, dtype=torch.bool)
    is_soft.view(-1)[batch.soft_at] = True
    at = torch.nonzero(follows & ~is_soft[:, 1:])
    # A quarter of the positions, drawn anew each time: the vocabulary's logits would be most of a step's cost.
    at = at[torch.rand(len(at)) < 0.25] if len(at) > 64 else at
    flat = at[:, 0] * length + at[:, 1]
    logits = lm.logits(hidden.index_select(0, flat))
    return cross_entropy(logits.float(), batch.ids.reshape(-1)[flat + 1])


def accuracy(documents: Documents, n_text: int, n_soft: int) -> dict[str, float]:
    """Accuracy (percent) by sub-task on the held-out documents, shown `n_text` items or one soft vector."""
    lm, questions = documents.lm, documents.questions
    groups = documents.groups(np.arange(documents.n_train, len(documents.pairs)), n_text, n_soft)
    right, asked = [], []
    with torch.no_grad():
        for part in plan_group_batches(groups, documents.config.token_budget):
            soft, renumbered = documents.soft(part, noise=0.0)
            batch = collate(renumbered, lm, 1, with_answers=False)
            logits = letter_logits(lm, batch, batch_hidden(lm, batch, soft))
            right.append((logits.argmax(1) == batch.answers).numpy())
            asked.append(batch.questions.numpy())
    correct, rows = np.concatenate(right), np.concatenate(asked)
    result = {"overall": 100.0 * float(correct.mean()), "n": len(rows)}
    for index, name in enumerate(SUBTASKS):
        mine = questions.subtask[rows] == index
        if mine.any():
            result[name] = 100.0 * float(correct[mine].mean())
    return result


def train_lm(
    store: InteractionStore,
    questions: QuestionSet,
    questions_content: str,
    templates: Templates,
    prompt: PromptConfig,
    out: Path,
    config: TrainLMConfig,
    *,
    progress: bool = True,
) -> tuple[Artifact, bool]:
    """Train the model into the artefact folder `out`; the model itself is `out`/model. Reused when unchanged."""
    if not set(np.unique(questions.user)) <= set(store.users("train").tolist()):
        raise InputError("questions: the language model may be trained on questions of training users only.")

    def make(folder: Path, work: Path) -> float:
        return _train(store, questions, templates, prompt, folder, work, config, progress)

    settings = {**to_dict(config), "prompt": to_dict(prompt)}
    return build(
        out, "train-lm", settings, {"data": store.manifest["content_hash"], "questions": questions_content}, make
    )


def _new_language_model(
    store: InteractionStore, questions: QuestionSet, templates: Templates, prompt: PromptConfig, config: TrainLMConfig
) -> LanguageModel:
    builder = PromptText(store, templates, prompt)
    rng = np.random.Generator(np.random.Philox(key=[config.seed, 1]))
    popular = store.catalogue.popularity / store.catalogue.popularity.sum()
    lines = [builder.item_line(int(i)) for i in rng.choice(len(store.catalogue), 20_000, p=popular)]
    rows = rng.choice(len(questions), min(5_000, len(questions)), replace=False)
    contents = [prompt.history_header + "\n" + builder.content(questions, int(row), 0) for row in rows]
    tokenizer = train_tokenizer(tokenizer_corpus(store.catalogue, lines, contents), config.model.vocab_size)
    return LanguageModel("small", new_model(config.model, tokenizer, config.seed), tokenizer)


def _train(
    store: InteractionStore,
    questions: QuestionSet,
    templates: Templates,
    prompt: PromptConfig,
    out: Path,
    work: Path,
    config: TrainLMConfig,
    progress: bool,
) -> float:
    seed_everything(config.seed, torch.device("cpu"))
    lm = _new_language_model(store, questions, templates, prompt, config)
    documents = Documents(lm, store, questions, PromptBuilder(lm, store, templates, prompt), config)

    watch = LetterWatch(lm, questions)

    def loss_fn(part: list[PromptGroup]) -> tuple[Tensor, int]:
        soft, renumbered = documents.soft(part, config.noise)
        batch = collate(renumbered, lm, 1, with_answers=True)
        hidden = batch_hidden(lm, batch, soft)
        watch.add(batch, letter_logits(lm, batch, hidden.detach()))
        loss = answer_loss(lm, batch, hidden) + config.text_weight * text_loss(lm, batch, hidden)
        return loss, int(batch.ids.numel())

    trainer = Trainer(
        {"llm": lm.model},
        loss_fn,
        config.optim,
        total_steps=config.optim.max_steps,
        work=work,
        log=out / "log.jsonl",
        label="train language model",
        progress=progress,
    )
    watch.records = trainer.records
    trainer.run(documents.batches)
    trainer.write_log()
    save_model(lm.model, lm.tokenizer, out / "model")
    card: dict[str, Any] = {
        "architecture": "Qwen2ForCausalLM",
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "split_hash": store.split_hash,
        "dataset": store.manifest["source"],
        "seed": config.seed,
        "steps": trainer.step,
        "held_out_accuracy": {
            **{f"text{n}": accuracy(documents, n, 0) for n in sorted(set(config.text_lengths))},
            "mean-embedding": accuracy(documents, 0, 1),
            "no-history": accuracy(documents, 0, 0),
        },
    }
    write_json(out / "model" / "card.json", card)
    write_json(out / "metrics.json", {"steps": trainer.step, "last": trainer.records[-1] if trainer.records else {}})
    return trainer.seconds
