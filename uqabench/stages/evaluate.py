"""Stage 3: answer the evaluation questions and keep every answer (paper §3.4)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from uqabench.artifact import Artifact, Stage
from uqabench.data.store import InteractionStore
from uqabench.errors import RunError
from uqabench.files import write_json
from uqabench.llm.batches import PromptGroup, batch_hidden, collate, letter_logits, plan_group_batches
from uqabench.llm.generate import greedy_texts
from uqabench.llm.language_model import LanguageModel
from uqabench.questions import baselines
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.scoring import score, write_predictions
from uqabench.settings.reader import key_dict
from uqabench.settings.stages import AlignConfig, EvaluateConfig
from uqabench.stages.align import (
    Context,
    PromptedMethod,
    SoftPrompts,
    load_aligned,
    prompt_groups,
    soft_for,
)
from uqabench.stages.memory import keep_freed_memory
from uqabench.stages.training import fits_in_memory
from uqabench.vocabulary import LETTERS, SUBTASKS


def shuffled_keys(users: np.ndarray, seed: int) -> np.ndarray:
    """For every (user, cut) pair (G,) the index of a pair of another user, drawn by `seed`."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 7]))
    unique = rng.permutation(np.unique(users))
    if len(unique) < 2:
        return np.arange(len(users))
    # A cyclic shift of shuffled users gives every user somebody else.
    partner = dict(zip(unique.tolist(), np.roll(unique, 1).tolist(), strict=True))
    of_user = {user: np.flatnonzero(users == user) for user in unique.tolist()}
    return np.array([rng.choice(of_user[partner[int(user)]]) for user in users])


def evaluate(
    context: Context,
    method: PromptedMethod,
    aligned: Artifact,
    align_config: AlignConfig,
    config: EvaluateConfig,
    *,
    progress: bool = True,
) -> Stage:
    """Answer all evaluation questions with one prompted method."""
    inputs = {**context.inputs, "align": aligned.content}
    if method.states_content:
        inputs["states"] = method.states_content
    settings = {**key_dict(config), "n_text": method.n_text, "method": method.name}
    settings |= context.asking()

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        keep_freed_memory()  # every batch asks for the blocks that the one before it gave back
        lm, soft = load_aligned(context, method, aligned, align_config)
        n_soft = soft.n_tokens if soft else 0
        label = f"evaluate {method.name}"
        found = []
        for steps in range(config.permutations):
            questions = context.evaluation.rotated(steps) if steps else context.evaluation
            groups = prompt_groups(context, lm, questions, method, n_soft, over_users=True)
            if config.shuffle:
                groups = _other_users(groups, method, questions, config.seed)
            with fits_in_memory(label, "evaluate.token_budget", config.token_budget):
                found.append(_answers(context, lm, soft, groups, config, label, progress))
        answers = averaged(found) if len(found) > 1 else found[0]
        seconds = time.monotonic() - started
        write_answers(folder, context.evaluation, method.name, answers, config.seed)
        return seconds

    return Stage("evaluate", settings, inputs, make)


def _other_users(
    groups: list[PromptGroup], method: PromptedMethod, questions: QuestionSet, seed: int
) -> list[PromptGroup]:
    pairs = np.unique(method.states.pairs.keys(questions))
    other = pairs[shuffled_keys(method.states.pairs.users[pairs], seed)]
    swap = dict(zip(pairs.tolist(), other.tolist(), strict=True))
    return [group.with_keys(swap.__getitem__) for group in groups]


@dataclass
class Answers:
    """letters (Q,) 0..3 (−1: none of them); logits (Q, 4) or None; tokens (Q,) of each prompt; texts or None."""

    letters: np.ndarray
    tokens: np.ndarray
    logits: np.ndarray | None = None
    texts: list[str] | None = None


def averaged(found: list[Answers]) -> Answers:
    """Answers from each option's mean logit. found: the answers with the options 0, 1, … letters further on."""
    logits = np.mean([np.roll(each.logits, -steps, axis=1) for steps, each in enumerate(found)], axis=0)
    return replace(found[0], logits=logits, letters=logits.argmax(axis=1))


def _answers(
    context: Context,
    lm: LanguageModel,
    soft: SoftPrompts | None,
    groups: list[PromptGroup],
    config: EvaluateConfig,
    label: str,
    progress: bool,
) -> Answers:
    n = len(context.evaluation)
    answers = Answers(np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros((n, len(LETTERS))))
    if config.generate:
        answers.texts = [""] * n
    for group in groups:
        for question, rest in zip(group.questions, group.rests, strict=True):
            answers.tokens[question] = len(group.prefix) + len(rest)
    with torch.no_grad(), tqdm(total=n, desc=label, unit="question", disable=not progress, leave=False) as bar:
        for part in plan_group_batches(groups, config.token_budget):
            vectors, renumbered = soft_for(soft, part)
            n_soft, packed = soft.n_tokens if soft else 0, lm.layout.packs(renumbered)
            batch = collate(renumbered, lm, n_soft, with_answers=False, packed=packed)
            logits = letter_logits(lm, batch, batch_hidden(lm, batch, vectors)).cpu().numpy()
            at = batch.questions.numpy()
            if not np.isfinite(logits).all():
                raise RunError(f"{label}: question {int(at[0])} got a logit that is not finite: align with a lower lr.")
            answers.logits[at], answers.letters[at] = logits, logits.argmax(1)
            if answers.texts is not None:
                for question, text in greedy_texts(lm, renumbered, vectors, config.max_new_tokens):
                    answers.texts[question] = text
                    answers.letters[question] = next((i for i, x in enumerate(LETTERS) if text.startswith(x)), -1)
            bar.update(len(at))
    return answers


def evaluate_baseline(
    store: InteractionStore,
    name: str,
    train: QuestionSet,
    evaluation: QuestionSet,
    inputs: dict[str, str],
    config: EvaluateConfig,
) -> Stage:
    """Answer with a baseline that needs no model (design, "No short cuts")."""

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        letters = baselines.predict(name, evaluation, store, train, seed=config.seed)
        seconds = time.monotonic() - started
        answers = Answers(letters.astype(np.int64), np.zeros(len(evaluation), dtype=np.int64))
        write_answers(folder, evaluation, name, answers, config.seed)
        return seconds

    return Stage("evaluate", {"baseline": name, "seed": config.seed}, inputs, make)


def write_answers(folder: Path, questions: QuestionSet, name: str, answers: Answers, seed: int) -> None:
    """Write predictions.jsonl and metrics.json of the method `name`; seed: of the bootstrap."""
    rows = []
    for i in range(len(questions)):
        letter = int(answers.letters[i])
        row: dict[str, Any] = {
            "id": i,
            "user": int(questions.user[i]),
            "cut": int(questions.cut[i]),
            "subtask": SUBTASKS[int(questions.subtask[i])],
            "prediction": LETTERS[letter] if letter >= 0 else "",
            "answer": LETTERS[int(questions.answer[i])],
            "tokens": int(answers.tokens[i]),
            "method": name,
        }
        level = "" if questions.texts is not None else KINDS[int(questions.kind[i])].level
        if level:
            row["level"] = level
        if answers.logits is not None:
            row["logits"] = [round(float(x), 4) for x in answers.logits[i]]
        if answers.texts is not None:
            row["text"] = answers.texts[i]
        rows.append(row)
    write_predictions(folder / "predictions.jsonl", rows)
    rule = "starts-with" if answers.texts is not None else "letter"
    write_json(folder / "metrics.json", score(rows, rule=rule, seed=seed))
