"""HSTU: hierarchical sequential transduction units (arXiv:2402.17152, section 3, equations 1-3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import as_product_input, cast, check_longest, check_room, init_gaussian
from uqabench.encoders.registry import register
from uqabench.kernels import hstu_attention, hstu_attention_step, layer_norm, linear_silu, norm_gate
from uqabench.kernels.backend import choose
from uqabench.kernels.hstu_attention.block import hstu_block, runs_as_one
from uqabench.kernels.key_values import KeyValues
from uqabench.settings.encoders import HSTUConfig

EPS = 1e-6


class HSTUBlock(nn.Module):
    """x + Linear(dropout(U * LayerNorm(SiLU-attention(Q, K, V)))) with U, V, Q, K = split(SiLU(LayerNorm(x) W)).

    Both layer norms carry no weights. Scores are SiLU(q . k + bias) / N, whatever the sequence's length.
    """

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        self.config = config
        self.qk_width, self.v_width = config.heads * config.qk_dim, config.heads * config.v_dim
        self.uvqk = nn.Linear(config.width, 2 * (self.v_width + self.qk_width), bias=False)
        self.out = nn.Linear(self.v_width, config.width)
        if config.bias == "auto":
            self.position_bias = nn.Parameter(torch.empty(2 * config.max_len - 1))
            self.time_bias = nn.Parameter(torch.empty(config.time_buckets + 1))

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None) -> Tensor:
        normed = self.normed(x)
        if runs_as_one(normed.device, normed.dtype):
            return x + self.out(self.gated_as_one(normed, offsets, timestamps))
        u, q, k, v = self.project(normed)
        biases = self.biases(q, timestamps)
        attended = hstu_attention(q, k, v, offsets, max_len=self.config.max_len, **biases)
        return x + self.out(self.gate(attended.reshape(x.shape[0], self.v_width), u))

    def append(
        self, cache: KeyValues | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None
    ) -> tuple[Tensor, KeyValues]:
        u, q, k, v = self.project(self.normed(x))
        biases = self.biases(q, timestamps)
        attended, cache = hstu_attention_step(q, k, v, offsets, cache, max_len=self.config.max_len, **biases)
        return x + self.out(self.gate(attended.reshape(x.shape[0], self.v_width), u)), cache

    def normed(self, x: Tensor) -> Tensor:
        """What the block's projection takes."""
        return as_product_input(layer_norm(x, eps=EPS))

    def gated_as_one(self, normed: Tensor, offsets: Tensor, timestamps: Tensor | None) -> Tensor:
        """What `project`, attention and `gate` make, by one GPU operator, whose gradients need no pass between them."""
        config = self.config
        sizes = {"heads": config.heads, "qk_dim": config.qk_dim, "v_dim": config.v_dim, "max_len": config.max_len}
        weight, biases = as_product_input(self.uvqk.weight), self.biases(normed, timestamps)
        return hstu_block(normed, weight, offsets, **sizes, eps=EPS, **self.kernel_dropout(normed), **biases)

    def project(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U (T, heads * v_dim), and Q, K and V by heads."""
        config = self.config
        mixed = linear_silu(normed, as_product_input(self.uvqk.weight))
        u, v, q, k = mixed.split([self.v_width, self.v_width, self.qk_width, self.qk_width], dim=-1)
        q, k = (part.unflatten(-1, (config.heads, config.qk_dim)) for part in (q, k))
        return u, q, k, v.unflatten(-1, (config.heads, config.v_dim))

    def biases(self, q: Tensor, timestamps: Tensor | None) -> dict[str, Tensor]:
        """The tables in q's dtype, and what the time's is read by; nothing where there is no bias."""
        if timestamps is None or self.config.bias != "auto":
            return {}
        tables = {"position_bias": cast(self.position_bias, q), "time_bias": cast(self.time_bias, q)}
        return tables | {"timestamps": timestamps}

    def gate(self, attended: Tensor, u: Tensor) -> Tensor:
        """dropout(U * LayerNorm(attended)): by the GPU kernel in one pass, which saves 10 of 26 bytes a number forward
        and backward; elsewhere torch's generator takes half as long as the counters of norm_gate's dropout."""
        if choose("norm_gate", attended.device.type, attended.dtype) == "triton":
            return norm_gate(attended, u, EPS, **self.kernel_dropout(attended))
        return F.dropout(norm_gate(attended, u, EPS), self.config.dropout, self.training)

    def kernel_dropout(self, x: Tensor) -> dict[str, Any]:
        """What a kernel that drops numbers is told: nothing where none are dropped."""
        p = self.config.dropout
        return {"dropout_p": p, "seed": torch.randint(2**62, (), device=x.device)} if self.training and p > 0 else {}


@register("hstu")
class HSTU(nn.Module):
    """A stack of HSTU blocks over packed sequences.

    With `bias="auto"` the article's relative position bias (2N - 1 values a block) and log-bucketed time bias are
    added to the scores whenever `timestamps` are given; the published UQABench runs have no timestamps and no bias.
    """

    causal = True

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.blocks = nn.ModuleList(HSTUBlock(config) for _ in range(config.layers))
        init_gaussian(self, config.init_std)
        if config.bias == "auto":
            for block in self.blocks:
                nn.init.normal_(block.position_bias, std=config.init_std)
                nn.init.normal_(block.time_bias, std=config.init_std)

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width), offsets int64 (B+1,), timestamps int64 (T,) in seconds or None, to states (T, width).

        Raises InputError when a sequence is longer than `max_len`.
        """
        check_longest(offsets, self.config.max_len, "HSTU")
        for block in self.blocks:
            x = block(x, offsets, timestamps)
        return x

    def append(
        self, state: tuple[KeyValues, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """States of inputs that continue histories, and the histories' new state: keys and values of every block.

        Raises InputError when a history gets longer than `max_len`.
        """
        caches = state or (None,) * len(self.blocks)
        check_room(caches[0], offsets, self.config.max_len, "HSTU")
        kept = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.append(cache, x, offsets, timestamps)
            kept.append(cache)
        return x, tuple(kept)
