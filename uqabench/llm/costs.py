"""What a prompt costs a language model by its shape alone: operations, and bytes of its keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn


@dataclass(frozen=True)
class ModelShape:
    """matrices: entries of all weight matrices that a token is multiplied by, embeddings and head aside; head: those of
    the head; layers, heads, kv_heads, head_width: of attention; itemsize: bytes of a number."""

    matrices: int
    head: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    itemsize: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelShape:
        """The shape of a causal language model of transformers."""
        config = model.config.get_text_config(decoder=True)
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        output = model.get_output_embeddings()
        head = output.weight.numel() if output is not None else 0
        outside = tables | ({id(output.weight)} if output is not None else set())
        matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2 and id(p) not in outside)
        heads = config.num_attention_heads
        return cls(
            matrices,
            head,
            config.num_hidden_layers,
            heads,
            _given(config, "num_key_value_heads", heads),
            _given(config, "head_dim", config.hidden_size // heads),
            model.get_input_embeddings().weight.element_size(),
        )

    def prompt_flops(self, tokens: np.ndarray) -> np.ndarray:
        """Floating-point operations (a multiply-add is two) of reading prompts of `tokens` tokens (Q,) up to the logits
        that answer: products with all matrices, causal attention, and one product with the head."""
        tokens = np.asarray(tokens, dtype=np.float64)
        attention = 2 * self.layers * self.heads * self.head_width * tokens * (tokens + 1)
        return 2 * self.matrices * tokens + attention + 2 * self.head

    def cache_bytes(self, tokens: np.ndarray) -> np.ndarray:
        """Bytes of the keys and values of `tokens` tokens (Q,), as a server keeps them while it answers."""
        return 2 * self.layers * self.kv_heads * self.head_width * self.itemsize * np.asarray(tokens, dtype=np.float64)


def _given(config: Any, name: str, otherwise: int) -> int:
    value = getattr(config, name, None)
    return otherwise if value is None else int(value)
