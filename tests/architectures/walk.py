"""Every causal architecture of the installed transformers: our answers against those of its own forward pass."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tests.architectures.tiny import VARIANTS, build, tiny_config
from uqabench.errors import InputError
from uqabench.llm.batches import answer_loss, batch_hidden, collate, letter_logits
from uqabench.llm.demo import train_tokenizer
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT

SHARED, OWN, REFUSED, NOT_BUILT = "a shared row", "a row each", "refused", "not tried"
N_SOFT = 2
TEXTS = ["one two three", "four five six"] * 4
# What the letters' logits may be off by in units of their spread, and the loss.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Verdict:
    """How the questions of one architecture are laid out, and why they do not share rows."""

    name: str
    rows: str
    reason: str = ""


def architectures() -> list[str]:
    """The names of all causal language models, and of the variants that have to be asked in another way."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS])


def walk(name: str) -> Verdict:
    """Build an architecture, lay questions out and compare; AssertionError where an answer, the loss, its gradient or
    the size of soft tokens is wrong."""
    try:
        model = build(tiny_config(name))
        model(input_ids=torch.arange(40)[None])
    except Exception as error:
        return Verdict(name, NOT_BUILT, _unbuilt(name, error))
    lm = LanguageModel(name, model, train_tokenizer(TEXTS, 400))
    try:
        layout = lm.layout
    except InputError as error:
        return Verdict(name, REFUSED, _without_numbers(str(error).partition("here: ")[2].partition(". Choose")[0]))
    reason = "" if layout.shared else _without_numbers(layout.reason)
    if not compare(lm):
        reason += "; evaluation only: its backward pass fails"
    return Verdict(name, SHARED if layout.shared else OWN, reason)


def compare(lm: LanguageModel, lengths: tuple[int, ...] = (11, 5, 8)) -> bool:
    """Three histories of three questions each, behind two soft tokens: every letter's logit, the loss and its gradient
    are those of the model's own forward pass on one question. False where that has no gradient."""
    rng = np.random.default_rng(0)
    ordinary = np.setdiff1d(np.arange(len(lm.tokenizer)), sorted(lm.control.ids))
    prompts = []
    for _ in range(3):
        head = np.concatenate([np.full(N_SOFT, SOFT), rng.choice(ordinary, 20)])
        prompts += [np.concatenate([head, rng.choice(ordinary, length)]) for length in lengths]
    keys, rows = np.arange(3).repeat(len(lengths)), np.arange(len(prompts))
    answers = rows % 4
    torch.manual_seed(0)
    soft = (torch.randn(3, N_SOFT, lm.width) * lm.token_rms).requires_grad_()
    table = lm.embed(torch.arange(len(lm.tokenizer))).detach()
    size = float(table.square().mean().sqrt())
    assert abs(lm.token_rms - size) < 0.1 * size, "the size of soft tokens"

    groups = lm.layout.group(prompts, keys, answers, rows, max(map(len, lm.answer_ids)) - 1)
    batch = collate(groups, lm, N_SOFT, with_answers=True)
    hidden = batch_hidden(lm, batch, soft.flatten(0, 1))
    got = letter_logits(lm, batch, hidden).detach()[batch.questions.argsort()]
    loss = answer_loss(lm, batch, hidden)

    expected, total = [], torch.zeros(())
    for prompt, key, answer in zip(prompts, keys, answers, strict=True):
        ids = lm.answer_ids[answer]
        logits = own_logits(lm, np.concatenate([prompt, ids[:-1]]), soft[key])[len(prompt) - 1 :]
        expected.append(own_logits(lm, prompt, soft[key])[-1, lm.letter_ids].detach())
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum")
    own_loss = total / len(prompts)
    wanted = torch.stack(expected)
    assert float((got - wanted).abs().max()) < TOLERANCE * float(wanted.std()), "the letters' logits"
    assert abs(float(loss) - float(own_loss)) < TOLERANCE * max(1.0, abs(float(own_loss))), "the loss"
    try:
        (own_gradient,) = torch.autograd.grad(own_loss, soft)
    except Exception:  # a model that cannot be trained through by itself
        return False
    (gradient,) = torch.autograd.grad(loss, soft)
    # Windows may hide the soft tokens from the answers altogether.
    assert float((gradient - own_gradient).norm()) <= 0.01 * float(own_gradient.norm()) + 1e-6, "the loss's gradient"
    return True


def own_logits(lm: LanguageModel, prompt: np.ndarray, soft: Tensor) -> Tensor:
    """Logits (L, V) of one prompt through the model's own forward pass, without a mask or positions of ours."""
    ids = torch.from_numpy(prompt)
    at = (ids == SOFT).nonzero()[:, 0]
    embeds = lm.model.get_input_embeddings()(ids.clamp_min(0)).index_copy(0, at, soft)
    return lm.model(inputs_embeds=embeds[None]).logits[0]


def table(verdicts: list[Verdict]) -> str:
    """The verdicts as a Markdown table: one line for all architectures of a layout and reason."""
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for verdict in verdicts:
        lines[verdict.rows, verdict.reason].append(verdict.name)
    order = [SHARED, OWN, REFUSED, NOT_BUILT]
    rows = sorted(lines.items(), key=lambda line: (order.index(line[0][0]), -len(line[1]), line[0][1]))
    head = "| questions get | why | architectures |\n|---|---|---|"
    return "\n".join([head, *(f"| {rows} | {why or '–'} | {', '.join(names)} |" for (rows, why), names in rows)])


def read_table(text: str) -> dict[str, Verdict]:
    """The verdicts of a table, by name."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {
        name: Verdict(name, rows, "" if why == "–" else why) for rows, why, names in cells for name in names.split(", ")
    }


def _without_numbers(reason: str) -> str:
    reason = re.sub(r" \(.*", "", reason)
    return re.sub(r"\d+ tokens", "a number of tokens", re.sub(r" by [\d.e-]+ of their spread", "", reason))


def _unbuilt(name: str, error: Exception) -> str:
    from transformers import CONFIG_MAPPING

    if getattr(CONFIG_MAPPING[name], "sub_configs", None):
        return "has parts for images, sound or a second model"
    return "no small configuration"
