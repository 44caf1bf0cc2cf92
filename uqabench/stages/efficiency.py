"""What a method costs when the language model is asked: tokens, operations, memory, and time on this machine.

A stage of its own: its timings differ between equal runs, and no other stage reads them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqabench.artifact import Artifact, Stage
from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.llm.batches import (
    PromptGroup,
    batch_hidden,
    collate,
    common_prefix,
    group_prompts,
    letter_logits,
    plan_group_batches,
)
from uqabench.llm.costs import ModelShape
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT, PromptBuilder
from uqabench.llm.shapes import random_model
from uqabench.llm.sources import load_tokenizer
from uqabench.settings.efficiency import EfficiencyConfig
from uqabench.settings.reader import key_dict
from uqabench.settings.stages import AlignConfig, EvaluateConfig
from uqabench.stages.align import (
    Context,
    PromptedMethod,
    SoftPrompts,
    load_aligned,
    prompt_groups,
    prompt_keys,
    soft_for,
)
from uqabench.stages.memory import peak_bytes
from uqabench.stages.states import FrozenStates


@dataclass(frozen=True)
class EncoderCost:
    """seconds: of encoding one history, measured over all that the run asks about; parameters: without tables."""

    seconds: float
    parameters: int


def encoder_cost(pretrained: Artifact, states: Artifact) -> EncoderCost:
    """What the encoder cost when the run encoded its histories."""
    histories = len(FrozenStates.open(states).pairs)
    parameters = pretrained.json("metrics.json")["encoder_parameters"]
    return EncoderCost(states.seconds / max(1, histories), int(parameters))


def measured_settings(config: EfficiencyConfig) -> dict[str, Any]:
    """What decides a measurement: prices do not, they are laid over it afterwards."""
    return {name: value for name, value in key_dict(config).items() if name != "prices"}


def measure_costs(
    context: Context,
    method: PromptedMethod,
    aligned: Artifact,
    align_config: AlignConfig,
    evaluate_config: EvaluateConfig,
    config: EfficiencyConfig,
    encoder: EncoderCost | None = None,
) -> Stage:
    """Measure one prompted method into the artefact folder `out`: costs.json (see `docs/efficiency.md`)."""
    inputs = {**context.inputs, "align": aligned.content}
    if method.states_content:
        inputs["states"] = method.states_content
    settings = {**measured_settings(config), "n_text": method.n_text, "method": method.name, **context.asking()}
    settings["token_budget"] = evaluate_config.token_budget

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        lm, soft = _model(context, method, aligned, align_config, config)
        with torch.no_grad():
            found = _Measurement(context, method, lm, soft, config, evaluate_config).costs()
        if encoder is not None:
            found["encoder"] = {"seconds": encoder.seconds, "parameters": encoder.parameters}
        write_json(folder / "costs.json", found)
        return time.monotonic() - started

    return Stage("efficiency", settings, inputs, make)


def _model(
    context: Context, method: PromptedMethod, aligned: Artifact, align_config: AlignConfig, config: EfficiencyConfig
) -> tuple[LanguageModel, SoftPrompts | None]:
    """The method's own language model, or one of the shape that is asked for, with an adapter of random weights."""
    if config.shape is None:
        return load_aligned(context, method, aligned, align_config)
    lm = random_model(config.shape, device=context.device, system=context.system)
    if method.states is None:
        return lm, None
    return lm, SoftPrompts(method.states, align_config, lm).to(lm.device).eval().requires_grad_(False)


class _Measurement:
    """One method, its language model, and the prompts of all evaluation questions."""

    def __init__(
        self,
        context: Context,
        method: PromptedMethod,
        lm: LanguageModel,
        soft: SoftPrompts | None,
        config: EfficiencyConfig,
        evaluate_config: EvaluateConfig,
    ) -> None:
        self.context, self.method, self.lm, self.soft = context, method, lm, soft
        self.config, self.evaluate_config = config, evaluate_config
        self.n_soft = soft.n_tokens if soft else 0
        self.questions = context.evaluation
        self.rows = np.arange(len(self.questions))
        self.prompts = self._encode(lm)
        self.keys = prompt_keys(self.questions, method)
        rng = np.random.Generator(np.random.Philox(key=[config.seed, 11]))
        self.order = rng.permutation(len(self.prompts))

    def _encode(self, lm: LanguageModel) -> list[np.ndarray]:
        builder = PromptBuilder(lm, self.context.store, self.context.templates, self.context.prompt)
        return builder.encode(self.questions, self.rows, n_text=self.method.n_text, n_soft=self.n_soft)

    def costs(self) -> dict[str, Any]:
        lengths = np.array([len(prompt) for prompt in self.prompts])
        shape = ModelShape.of(self.lm.model)
        parameters = list(self.lm.model.parameters())
        return {
            "machine": machine(self.lm.device),
            "model": {
                "name": self.config.shape,
                "random_weights": self.config.shape is not None,
                "parameters": sum(p.numel() for p in parameters),
                "weight_bytes": sum(p.numel() * p.element_size() for p in parameters),
                "dtype": str(parameters[0].dtype).removeprefix("torch."),
            },
            "tokens": self._tokens(lengths),
            "prompt_flops": float(shape.prompt_flops(lengths).mean()),
            "cache_bytes": float(shape.cache_bytes(lengths).mean()),
            **self._times(),
        }

    def _tokens(self, lengths: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {"input": _spread(lengths), "soft": self.n_soft, "other": None}
        found["shared_by_users"] = self._shared(self.prompts)
        by_key: dict[int, list[np.ndarray]] = {}
        for key, prompt in zip(self.keys.tolist(), self.prompts, strict=True):
            by_key.setdefault(key, []).append(prompt)
        several = [prompts for prompts in by_key.values() if len(prompts) > 1]
        shared = [common_prefix(prompts) for prompts in several]
        found["shared_by_questions"] = float(np.mean(shared)) if shared else 0.0
        if self.config.shape is None:
            found["computed"] = sum(group.n_tokens() for group in self._groups()) / len(self.prompts)
        if self.config.tokenizer is not None and self.config.shape is None:
            found["other"] = self._other_tokens(self.config.tokenizer)
        return found

    def _shared(self, prompts: list[np.ndarray]) -> int:
        """Tokens at the beginning of all prompts that no user's own tokens stand before."""
        if len(prompts) < 2:
            return 0
        before_soft = [int(np.argmax(prompt == SOFT)) for prompt in prompts if SOFT in prompt]
        return min([common_prefix(prompts), *before_soft])

    def _other_tokens(self, name: str) -> dict[str, Any] | None:
        try:
            tokenizer = load_tokenizer(name)
        except InputError:  # not installed
            return None
        counter = LanguageModel(name, None, tokenizer, system=self.context.system)
        return {"tokenizer": name, **_spread(np.array([len(prompt) for prompt in self._encode(counter)]))}

    def _times(self) -> dict[str, Any]:
        timed = self.order[: self.config.prompts]
        call = self._answer_of
        call(timed[:1])  # pages are mapped and threads start
        seconds = np.array([_seconds(lambda row=row: call(np.array([row]))) for row in timed])
        by_batch = {"1": float(1 / np.median(seconds))}
        for batch in self.config.batches if self.config.shape is None else ():
            if batch > len(self.order):
                break
            spent = min(_seconds(lambda rows=self.order[:batch]: call(rows)) for _ in range(2))
            by_batch[str(batch)] = batch / spent
            if spent > self.config.patience:
                break
        best = max(by_batch, key=by_batch.__getitem__)
        peak = peak_bytes(lambda: call(timed[:1]), self.lm.device)
        found = {
            "first_token_seconds": {"median": float(np.median(seconds)), "p95": float(np.quantile(seconds, 0.95))},
            "questions_per_second": by_batch,
            "best_batch": int(best),
            "peak_bytes": peak,
            "peak_bytes_best_batch": peak
            if best == "1"
            else peak_bytes(lambda: call(self.order[: int(best)]), self.lm.device),
        }
        if self.config.shape is None:
            found["evaluation_questions_per_second"] = self._evaluation_rate()
        return found

    def _answer_of(self, rows: np.ndarray) -> Tensor:
        """Letters' logits (Q, 4) of questions that share nothing, in one pass: from stored states to the answer."""
        prompts = [self.prompts[row] for row in rows]
        alone = self.config.shape is not None or not self.lm.layout.shared
        answers = self.questions.answer[rows]
        groups = group_prompts(prompts, self.keys[rows], answers, rows, max_questions=1, own_mask=alone)
        return self._answer(groups)

    def _answer(self, groups: list[PromptGroup]) -> Tensor:
        vectors, renumbered = soft_for(self.soft, groups)
        packed = not renumbered[0].own_mask and self.lm.layout.packs(renumbered)
        batch = collate(renumbered, self.lm, self.n_soft, with_answers=False, packed=packed)
        return letter_logits(self.lm, batch, batch_hidden(self.lm, batch, vectors))

    def _groups(self) -> list[PromptGroup]:
        return prompt_groups(self.context, self.lm, self.questions, self.method, self.n_soft, over_users=True)

    def _evaluation_rate(self) -> float:
        """Questions a second of an evaluation that shares prefixes, over a part of the questions' batches."""
        parts = plan_group_batches(self._groups(), self.evaluate_config.token_budget)
        some = parts[:: max(1, len(parts) // 4)]
        seconds = sum(_seconds(lambda part=part: self._answer(part)) for part in some)
        return sum(len(group.questions) for part in some for group in part) / seconds


def _spread(lengths: np.ndarray) -> dict[str, float]:
    return {"mean": float(lengths.mean()), "p95": float(np.quantile(lengths, 0.95))}


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def machine(device: torch.device) -> dict[str, Any]:
    """What the timings were taken on: processor or GPU, threads, versions, and how busy the system was."""
    name = _cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "load": load,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
