"""Language models of a known shape with random weights: what they cost is real, what they answer is not."""

from __future__ import annotations

import torch

from uqabench.llm.language_model import LanguageModel
from uqabench.llm.sources import import_transformers, load_tokenizer

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


def random_model(shape: str, *, device: str = "cpu", system: str | None = None) -> LanguageModel:
    """A bfloat16 model of the shape (`qwen2.5-3b`: 3.1e9 parameters, 6.2 GB), with Qwen2.5's tokenizer.

    InputError where that tokenizer is not installed (`uqabench llm add qwen2.5-tokenizer`).
    """
    transformers = import_transformers("A language model")
    tokenizer = load_tokenizer(TOKENIZER)
    config = transformers.Qwen2Config(**_SHAPES[shape], attn_implementation="sdpa")
    with torch.device("meta"):
        model = transformers.Qwen2ForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
        # Computed when a model is made, so not among what `to_empty` filled.
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    model.tie_weights()
    model.eval().requires_grad_(False)
    return LanguageModel(f"{shape} (random weights)", model, tokenizer, system=system)
