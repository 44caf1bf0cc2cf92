"""Language models of a known shape with random weights: what they cost is real, what they answer is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from uqabench.llm.language_model import LanguageModel
from uqabench.llm.sources import import_transformers, load_tokenizer, local_config

TOKENIZER = "qwen2.5-tokenizer"
"""The installed alias whose tokenizer these shapes have."""

_SHAPES = {
    "qwen2.5-3b": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    }
}

_BLOCK = 1_000_003
"""Random numbers that are drawn: a prime, so that no two rows of a matrix are alike."""
_NAMES = {"Qwen/Qwen2.5-3B-Instruct": "qwen2.5-3b", "Qwen/Qwen2.5-3B": "qwen2.5-3b"}
"""Models of the hub whose shape is known without asking it."""


def empty_model(name: str) -> nn.Module | None:
    """A model's modules without weights (device meta); None where its shape is neither known nor on this machine.

    name: a folder, an installed alias or a Hugging Face name. Nothing is downloaded.
    """
    transformers = import_transformers("A language model")
    config = _config(_NAMES[name]) if name in _NAMES else local_config(name)
    if config is None:
        return None
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def _config(shape: str) -> Any:
    transformers = import_transformers("A language model")
    return transformers.Qwen2Config(**_SHAPES[shape], attn_implementation="sdpa")


def random_model(shape: str, *, device: str = "cpu", system: str | None = None) -> LanguageModel:
    """A bfloat16 model of the shape (`qwen2.5-3b`: 3.1e9 parameters, 6.2 GB), with Qwen2.5's tokenizer.

    InputError where that tokenizer is not installed (`uqabench llm add qwen2.5-tokenizer`).
    """
    transformers = import_transformers("A language model")
    tokenizer = load_tokenizer(TOKENIZER)
    config = _config(shape)
    with torch.device("meta"):
        model = transformers.Qwen2ForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(0)
    # One block again and again: drawing three billion numbers takes longer than most prompts.
    block = torch.empty(_BLOCK, dtype=torch.bfloat16, device=device).normal_(0.0, 0.02, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                for part in parameter.flatten().split(_BLOCK):
                    part.copy_(block[: len(part)])
        # Computed when a model is made, so not among what `to_empty` filled.
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    model.tie_weights()
    model.eval().requires_grad_(False)
    return LanguageModel(f"{shape} (random weights)", model, tokenizer, system=system)
