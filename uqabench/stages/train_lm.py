"""Train the small language model that reads histories and options: questions of training users only.

Each training document is one history and several different questions about it. The history comes as text, as soft
vectors (mean token embeddings of the whole and of its last items, such as an adapter makes of an encoder's states), or
not at all. What makes it learn in minutes: embeddings that already compare (`lm_embeddings`), hints that fade
(`lm_documents`), and questions half-way up (`lm_probe`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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
    answer_loss,
    batch_hidden,
    collate,
    letter_logits,
)
from uqabench.llm.demo import in_stored_format, new_model, save_model, train_tokenizer
from uqabench.llm.history import window_text
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.products import use_onednn
from uqabench.llm.prompts import PromptBuilder
from uqabench.questions.messages import PromptText
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import value_texts
from uqabench.questions.templates import Templates
from uqabench.settings.llm import PromptConfig, TrainLMConfig
from uqabench.settings.reader import key_dict
from uqabench.stages.lm_documents import DocumentBatch, Documents, token_windows
from uqabench.stages.lm_embeddings import train_embeddings
from uqabench.stages.lm_probe import OptionProbe
from uqabench.stages.lm_reading import held_out_accuracy
from uqabench.stages.lm_vectors import SoftVectors
from uqabench.stages.training import Trainer, seed_everything
from uqabench.vocabulary import SUBTASKS


def tokenizer_corpus(catalogue: Catalogue, lines: list[str], contents: list[str], windows: list[str]) -> list[str]:
    """Text the tokenizer learns from: every value once, item lines and questions as often as they occur, and the names
    of windows often enough that each is one token."""
    values = [text for attribute in catalogue.attributes() for text in value_texts(catalogue, attribute)]
    return values + lines + contents + [str(n) for n in range(1, 513)] + windows * len(contents)


class LetterWatch:
    """Accuracy of the letters in training batches by sub-task, for each number of soft vectors, every 50 batches."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._clear()

    def _clear(self) -> None:
        self.batches = 0
        self.right: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(len(SUBTASKS)))
        self.asked: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(len(SUBTASKS)))

    def add(self, shown: DocumentBatch, batch: GroupBatch, logits: Tensor) -> None:
        """Count one batch."""
        subtask = shown.source.questions.subtask[batch.questions.numpy()]
        n_soft = len(shown.windows)
        np.add.at(self.asked[n_soft], subtask, 1)
        np.add.at(self.right[n_soft], subtask, (logits.argmax(1) == batch.answers).numpy())
        self.batches += 1
        if self.batches == 50:
            for n in sorted(self.asked):
                share = 100 * self.right[n] / np.maximum(1, self.asked[n])
                letters = {task: round(x, 1) for task, x in zip(SUBTASKS, share.tolist(), strict=True)}
                self.records.append({f"letters-with-{n}-soft": letters})
            self._clear()


def train_lm(
    store: InteractionStore,
    questions: Mapping[str, QuestionSet],
    contents: Mapping[str, str],
    templates: Templates,
    prompt: PromptConfig,
    config: TrainLMConfig,
    *,
    progress: bool = True,
) -> Stage:
    """Train the model into the artefact folder `out`; the model itself is `out`/model. Reused when unchanged.

    questions, contents: question sets by version and their content hashes; rounds of documents take turns.
    """
    trained_on = set(store.users("train").tolist())
    if not all(set(np.unique(asked.user)) <= trained_on for asked in questions.values()):
        raise InputError("questions: the language model may be trained on questions of training users only.")

    def make(folder: Path, work: Path) -> float:
        return _train(store, questions, templates, prompt, folder, work, config, progress)

    settings = {**key_dict(config), "prompt": key_dict(prompt), "templates": templates.digest}
    inputs = {f"questions {version}": content for version, content in contents.items()}
    return Stage("train-lm", settings, {"data": store.content_hash, **inputs}, make)


def _new_language_model(
    store: InteractionStore,
    questions: Mapping[str, QuestionSet],
    templates: Templates,
    prompt: PromptConfig,
    config: TrainLMConfig,
) -> LanguageModel:
    builder = PromptText(store, templates, prompt)
    rng = np.random.Generator(np.random.Philox(key=[config.seed, 1]))
    popular = store.catalogue.popularity / store.catalogue.popularity.sum()
    lines = [builder.item_line(int(i)) for i in rng.choice(len(store.catalogue), 20_000, p=popular)]
    contents = []
    for asked in questions.values():
        rows = rng.choice(len(asked), min(5_000, len(asked)), replace=False)
        contents += [prompt.history_header + "\n" + builder.content(asked, int(row), 0) for row in rows]
    windows = [window_text(window) for name in config.integrations for window in token_windows(name)]
    tokenizer = train_tokenizer(tokenizer_corpus(store.catalogue, lines, contents, windows), config.model.vocab_size)
    return LanguageModel("small", new_model(config.model, tokenizer, config.seed), tokenizer)


def _train(
    store: InteractionStore,
    questions: Mapping[str, QuestionSet],
    templates: Templates,
    prompt: PromptConfig,
    out: Path,
    work: Path,
    config: TrainLMConfig,
    progress: bool,
) -> float:
    seed_everything(config.seed, torch.device("cpu"))
    lm = _new_language_model(store, questions, templates, prompt, config)
    use_onednn(lm.model)
    builder = PromptBuilder(lm, store, templates, prompt)
    n_soft = max(len(token_windows(name)) for name in config.integrations)
    for asked in questions.values():
        lm.check_prompts(builder.longest(asked, n_text=max(config.text_lengths), n_soft=n_soft), "llm.train")
    vectors = SoftVectors(lm, builder)
    corpora = [Documents(vectors, store, asked, builder, config) for asked in questions.values()]

    probe, middle = OptionProbe(lm), (config.model.layers + 1) // 2
    watch = LetterWatch()

    def loss_fn(part: DocumentBatch) -> tuple[Tensor, int]:
        soft, renumbered = part.source.soft(part, config.noise)
        batch = collate(renumbered, lm, len(part.windows), with_answers=True)
        hidden, half_way = batch_hidden(lm, batch, soft, layer=middle)
        watch.add(part, batch, letter_logits(lm, batch, hidden.detach()))
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

    def batches_of(round_index: int) -> list[DocumentBatch]:
        # A run that goes on in the middle of a round must read the vectors as that round began with them.
        if trainer.step_in_epoch == 0:
            corpora[0].measure_vectors()
            trainer.extra["moments"] = vectors.state()
        else:
            vectors.restore(trainer.extra["moments"])
        return corpora[round_index % len(corpora)].batches(round_index)

    if trainer.step == 0:  # a checkpoint holds the trained table already
        nearest = train_embeddings(corpora, config.embedding_steps, config.seed)
        trainer.records.append({"nearest-option": round(nearest, 1)})
    trainer.run(batches_of)
    trainer.write_log()
    save_model(in_stored_format(lm.model), lm.tokenizer, out / "model")
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
            version: held_out_accuracy(documents) for version, documents in zip(questions, corpora, strict=True)
        },
    }
    write_json(out / "model" / "card.json", card)
    write_json(out / "metrics.json", {"steps": trainer.step, "last": trainer.records[-1] if trainer.records else {}})
    return trainer.seconds
