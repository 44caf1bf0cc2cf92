"""Bytes of memory that a causal language model needs to be trained and asked, part by part, from its shape alone.

Counted for models of Qwen2's and Llama's kind: RMS norms, rotary embedding, grouped queries, a gated MLP. What a layer
keeps of a token for its backward pass follows from what its operations read again, in transformers' own code with
torch's fused attention: h is the width, q the width of all heads together, I the inner width of the MLP, b the bytes of
a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from uqabench.llm.costs import ModelShape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LORA_LAYERS = 7
"""Linear layers of a layer: queries, keys, values, output, and three of the MLP."""


@dataclass(frozen=True)
class Footprint:
    """Bytes by part. copies: of the weights in bfloat16, which autocast keeps as long as their products' inputs.
    moments: AdamW's two. activations: of one forward pass, with what its backward pass adds. logits: of the tokens that
    answer."""

    weights: float
    copies: float
    gradients: float
    moments: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All parts together."""
        return self.fixed + self.activations

    @property
    def fixed(self) -> float:
        """What does not grow with the tokens of a pass."""
        return self.weights + self.copies + self.gradients + self.moments + self.logits


@dataclass(frozen=True)
class ModelSize:
    """parameters: in all; width, inner: of the hidden states and of the MLP; vocabulary: rows of the head."""

    shape: ModelShape
    parameters: int
    width: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelSize:
        """The size of a causal language model of transformers, whose weights need not be there (device meta)."""
        config = model.config.get_text_config(decoder=True)
        parameters = sum(p.numel() for p in model.parameters())
        return cls(ModelShape.of(model), parameters, config.hidden_size, config.intermediate_size, config.vocab_size)

    def asked(self, dtype: str, tokens: int, answers: int, *, rank: int = 0) -> Footprint:
        """To answer `answers` questions of `tokens` tokens in all, in one pass without gradients; `rank`: of added
        matrices."""
        b = BYTES[dtype]
        # The residual and a layer's input, and three of the MLP's inner states.
        alive = b * (3 * self.width + 3 * self.inner)
        if rank:  # what the added matrices read and give, in float32
            alive += 4 * (self.width + self.inner) if b == 4 else 4 * (4 * self.width + 2 * self.inner)
        weights = b * self.parameters + 4 * self._lora_parameters(rank)
        return Footprint(weights, 0, 0, 0, tokens * alive, answers * 8 * self.vocabulary)

    def aligned(
        self,
        strategy: str,
        dtype: str,
        tokens: int,
        answers: int,
        *,
        adapter: int = 0,
        rank: int = 0,
        recompute: bool = False,
    ) -> Footprint:
        """To train on a pass of `tokens` tokens, `answers` of which are read.

        strategy: "full" (the language model trains, in float32, under autocast where dtype is bfloat16), "lora"
        (matrices of `rank` do) or "adapter" (the language model is frozen). adapter: parameters of the adapter.
        recompute: keep the layers' inputs alone (`align.recompute`).
        """
        full = strategy == "full"
        autocast = full and dtype == "bfloat16"
        held = 4 if full else BYTES[dtype]
        lora = self._lora_parameters(rank) if strategy == "lora" else 0
        trained = adapter + lora + (self.parameters if full else 0)
        layer = self._kept(strategy, dtype, rank)
        passing = self._passing(2 if autocast else 4 if lora else held)
        residual = self.width * held
        layers = self.shape.layers
        kept = layers * residual + layer if recompute else layers * layer
        final_norm = 4 * self.width * (2 if full else 1)
        number = 2 if autocast else held
        products = self.shape.matrices / (layers if recompute else 1) + self.shape.head
        return Footprint(
            weights=held * self.parameters + 4 * (adapter + lora),
            copies=2 * products if autocast else 0,
            gradients=4 * trained,
            moments=8 * trained,
            activations=tokens * (kept + passing + final_norm),
            logits=answers * self.vocabulary * (16 if number < 4 else 12),
        )

    def _kept(self, strategy: str, dtype: str, rank: int) -> float:
        """Bytes that one layer keeps of a token for its backward pass."""
        h, q, inner = self.width, self.shape.heads * self.shape.head_width, self.inner
        # Both norms' scales, and the logarithm of each head's sum of weights.
        small = 8 + 4 * self.shape.heads
        if strategy != "full":
            b = BYTES[dtype]
            # Both norms' inputs in float32; queries, keys, values and result of all heads; gate, its SiLU, up.
            kept = small + 8 * h + 4 * b * q + 3 * b * inner
            return kept + (self._lora_kept(dtype, rank) if strategy == "lora" else 0)
        if dtype == "bfloat16":
            # Norms keep input and result in float32, and each product its own bfloat16 copy of its input.
            return small + 16 * h + 2 * (5 * h + 4 * q + 4 * inner)
        return small + 16 * h + 4 * (2 * h + 4 * q + 4 * inner)

    def _lora_kept(self, dtype: str, rank: int) -> float:
        """What the added matrices keep beside: float32 inputs, each product's own where the model is not float32."""
        h, q, inner = self.width, self.shape.heads * self.shape.head_width, self.inner
        inputs = 2 * h + inner if dtype == "float32" else 5 * h + q + inner
        return 4 * (inputs + LORA_LAYERS * rank)

    def _passing(self, b: int) -> float:
        """Bytes a token of the gradients that pass through the MLP of one layer."""
        return b * (3 * self.inner + 2 * self.width)

    def _lora_parameters(self, rank: int) -> int:
        shape, h, inner = self.shape, self.width, self.inner
        q, kv = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        return shape.layers * rank * (2 * (h + q) + 2 * (h + kv) + 3 * (h + inner))
