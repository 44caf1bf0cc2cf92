"""Train the small language model that reads histories and options: questions of training users only.

Each training document is one history and several different questions about it. The history comes as text, as one
soft vector (its mean token embedding, so that a pooled user embedding later finds a model that can use it), or not at
all. What makes it learn in minutes: embeddings that already compare (`lm_embeddings`), hints that fade
(`lm_documents`), and questions half-way up (`lm_probe`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqabench.artifact import Stage
from uqabench.data.catalogue import Catalogue
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.llm.batches import (
    GroupBatch,
    PromptGroup,
    answer_loss,
    batch_hidden,
    collate,
    letter_logits,
    plan_group_batches,
)
from uqabench.llm.demo import new_model, save_model, train_tokenizer
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import PromptBuilder
from uqabench.questions.messages import PromptText
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import value_texts
from uqabench.questions.templates import Templates
from uqabench.settings.llm import PromptConfig, TrainLMConfig
from uqabench.settings.reader import key_dict
from uqabench.stages.lm_documents import Documents
from uqabench.stages.lm_embeddings import train_embeddings
from uqabench.stages.lm_probe import OptionProbe
from uqabench.stages.training import Trainer, seed_everything
from uqabench.vocabulary import SUBTASKS


def tokenizer_corpus(catalogue: Catalogue, lines: list[str], contents: list[str]) -> list[str]:
    """Text the tokenizer learns from: every value once, then item lines and questions as often as they occur."""
    values = [text for attribute in catalogue.attributes() for text in value_texts(catalogue, attribute)]
    return values + lines + contents + [str(n) for n in range(1, 513)]


class LetterWatch:
    """Accuracy of the letters in training batches by sub-task, with a soft vector and without, every 50 batches."""

    def __init__(self, questions: QuestionSet) -> None:
        self.questions = questions
        self.records: list[dict[str, Any]] = []
        self._clear()

    def _clear(self) -> None:
        self.batches, self.right, self.asked = 0, np.zeros((2, len(SUBTASKS))), np.zeros((2, len(SUBTASKS)))

    def add(self, batch: GroupBatch, logits: Tensor) -> None:
        """Count one batch."""
        length = batch.ids.shape[1]
        soft = torch.isin(batch.prompt_end // length, batch.soft_at // length).long().numpy()
        place = (soft, self.questions.subtask[batch.questions.numpy()])
        np.add.at(self.asked, place, 1)
        np.add.at(self.right, place, (logits.argmax(1) == batch.answers).numpy())
        self.batches += 1
        if self.batches == 50:
            share = 100 * self.right / np.maximum(1, self.asked)
            for name, row in zip(("letters-without-soft", "letters-with-soft"), share, strict=True):
                self.records.append({name: {task: round(x, 1) for task, x in zip(SUBTASKS, row, strict=True)}})
            self._clear()


def accuracy(documents: Documents, n_text: int, n_soft: int) -> dict[str, float]:
    """Accuracy (percent) by sub-task on the held-out documents, shown `n_text` items or one soft vector (which is asked
    only what it can know)."""
    lm, questions = documents.lm, documents.questions
    documents.hint = 0.0
    groups = documents.groups(np.arange(documents.n_train, len(documents.pairs)), n_text, n_soft)
    if not groups:
        return {"n": 0}
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
    config: TrainLMConfig,
    *,
    progress: bool = True,
) -> Stage:
    """Train the model into the artefact folder `out`; the model itself is `out`/model. Reused when unchanged."""
    if not set(np.unique(questions.user)) <= set(store.users("train").tolist()):
        raise InputError("questions: the language model may be trained on questions of training users only.")

    def make(folder: Path, work: Path) -> float:
        return _train(store, questions, templates, prompt, folder, work, config, progress)

    settings = {**key_dict(config), "prompt": key_dict(prompt), "templates": templates.digest}
    return Stage("train-lm", settings, {"data": store.content_hash, "questions": questions_content}, make)


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
    builder = PromptBuilder(lm, store, templates, prompt)
    lm.check_prompts(builder.longest(questions, n_text=max(config.text_lengths), n_soft=1), "llm.train")
    documents = Documents(lm, store, questions, builder, config)

    probe, middle = OptionProbe(lm), (config.model.layers + 1) // 2
    watch = LetterWatch(questions)

    def loss_fn(part: list[PromptGroup]) -> tuple[Tensor, int]:
        soft, renumbered = documents.soft(part, config.noise)
        batch = collate(renumbered, lm, 1, with_answers=True)
        hidden, half_way = batch_hidden(lm, batch, soft, layer=middle)
        watch.add(batch, letter_logits(lm, batch, hidden.detach()))
        loss = answer_loss(lm, batch, hidden) + config.probe_weight * probe(half_way, batch)
        return loss, int(batch.ids.numel())

    trainer = Trainer(
        {"llm": lm.model, "probe": probe},
        loss_fn,
        config.optim,
        total_steps=config.optim.max_steps,
        work=work,
        log=out / "log.jsonl",
        label="train language model",
        progress=progress,
    )
    watch.records = trainer.records
    if trainer.step == 0:  # a checkpoint holds the trained table already
        nearest = train_embeddings(documents, config.embedding_steps, config.seed)
        trainer.records.append({"nearest-option": round(nearest, 1)})
    trainer.run(documents.batches)
    trainer.write_log()
    save_model(lm.model, lm.tokenizer, out / "model")
    card: dict[str, Any] = {
        "architecture": "Qwen2ForCausalLM",
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "split_hash": store.split_hash,
        "evaluation_hash": store.evaluation_hash,
        "dataset": store.manifest["source"],
        "seed": config.seed,
        "steps": trainer.step,
        "settings": key_dict(config),
        "held_out_accuracy": {
            **{f"text{n}": accuracy(documents, n, 0) for n in sorted(set(config.text_lengths))},
            "mean-embedding": accuracy(documents, 0, 1),
            "no-history": accuracy(documents, 0, 0),
        },
    }
    write_json(out / "model" / "card.json", card)
    write_json(out / "metrics.json", {"steps": trainer.step, "last": trainer.records[-1] if trainer.records else {}})
    return trainer.seconds
