"""Rows of a 3 B language model with random weights: a step of adapter alignment, and evaluation, in bf16.

The shape is that of Qwen2.5-3B. A prompt has 144 tokens: the paper counts 133 with one soft token (its table 7), and
the answer follows. In alignment the model is frozen; gradients pass through it to the soft prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from bench.row import Floor, Made, Row, Setting
from bench.work import Least

PROMPT, QUESTIONS = 144, 64
SHAPE = {
    "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
MATRICES = 36 * (2048 * (2048 + 2 * 256 + 2048) + 3 * 2048 * 11_008)
"""Parameters in the layers' matrices."""


def _model(setting: Setting) -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(setting.device):
            model = Qwen2ForCausalLM(Qwen2Config(**(SMALL if setting.is_small else SHAPE)))
    finally:
        torch.set_default_dtype(previous)
    return model.eval().requires_grad_(False)


def _tokens(setting: Setting) -> int:
    return 4 * 12 if setting.is_small else QUESTIONS * PROMPT


def _prompts(model: nn.Module, setting: Setting) -> Tensor:
    rows, length = (4, 12) if setting.is_small else (QUESTIONS, PROMPT)
    return torch.randn(rows, length, model.config.hidden_size, device=setting.device, dtype=torch.bfloat16) * 0.02


def _align(model: nn.Module, prompts: Tensor, target: Tensor) -> None:
    prompts = prompts.detach().requires_grad_()
    hidden = model.model(inputs_embeds=prompts, use_cache=False).last_hidden_state[:, -8:]
    logits = model.lm_head(hidden).float().flatten(0, 1)
    nn.functional.cross_entropy(logits, target).backward()


def _ask(model: nn.Module, prompts: Tensor) -> None:
    with torch.no_grad():
        model.lm_head(model.model(inputs_embeds=prompts, use_cache=False).last_hidden_state[:, -1])


def _make(is_training: bool, setting: Setting) -> Made:
    model = _model(setting)
    prompts = [_prompts(model, setting) for _ in range(2)]
    target = torch.randint(model.config.vocab_size, (len(prompts[0]) * 8,), device=setting.device)
    if is_training:
        return Made([partial(_align, model, p, target) for p in prompts])
    return Made([partial(_ask, model, p) for p in prompts])


def rows() -> Iterator[Row]:
    """FLOPs 2 a parameter and token forward, and as many for the gradient of the inputs alone."""
    for name, is_training in (("3 B model, adapter alignment step", True), ("3 B model, evaluation step", False)):
        factor = 4 if is_training else 2
        yield Row(
            name=name,
            group="language",
            unit="tensor",
            floor=partial(lambda factor, setting: Floor(Least(factor * MATRICES * float(_tokens(setting)))), factor),
            make=partial(_make, is_training),
            tokens=_tokens,
        )
