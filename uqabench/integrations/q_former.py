"""A Q-Former: learned queries read all states by cross-attention.

The paper (§4.3.2) compares it with mean pooling, and reports that it is sensitive to the learning rate and ends in NaN
losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.errors import InputError
from uqabench.integrations.base import Integration, IntegrationSettings
from uqabench.integrations.linear import check_sizes
from uqabench.integrations.registry import register

_EMPTY_STD = 0.02
# Small enough that what a sequence says outweighs the queries (84 % of the output's variance is across users at width
# 512, against 17 % with std 1), large enough that the queries differ from the start (12 %, against 1 % with std 0.02).
_QUERY_STD = 0.2


@register("q-former")
class QFormer(Integration):
    """`n_queries` soft tokens that a small transformer reads from all states."""

    def n_tokens(self, settings: IntegrationSettings) -> int:
        return settings.n_queries

    def build(self, width: int, llm_width: int, token_rms: float, settings: IntegrationSettings) -> QFormerAdapter:
        heads = math.gcd(width, 8)  # eight where the width allows it
        return QFormerAdapter(width, llm_width, token_rms, n_queries=settings.n_queries, heads=heads)


class QFormerAdapter(nn.Module):
    """`n_queries` soft tokens: learned queries that read a sequence's states by cross-attention.

    Each layer is pre-norm cross-attention, self-attention among the queries, and a feed-forward half. What keeps
    training finite at learning rates from 1e-5 to 1e-2, whatever the scale of the encoder's states:
    LayerNorm on the states; every residual half normalises its input; queries and keys are normalised a head, so an
    attention logit is at most sqrt(head width) in size; softmax in float32; and the tokens leave with unit RMS times
    exp(log_scale), which starts at `token_rms` (RMS of the language model's token embeddings) and which a step of size
    lr changes by the factor exp(±lr), however small the embeddings are.

    Sequences are packed outside. Inside, keys and values are padded to the batch's longest sequence for the
    cross-attention (memory B · max length · width, no pad is attended to); an empty sequence attends to one learned
    "empty" state.
    """

    def __init__(
        self,
        width: int,
        llm_width: int,
        token_rms: float,
        *,
        n_queries: int = 16,
        layers: int = 2,
        heads: int = 8,
    ) -> None:
        super().__init__()
        check_sizes(token_rms, width=width, llm_width=llm_width, n_queries=n_queries, layers=layers, heads=heads)
        if width % heads:
            raise InputError(f"Q-Former: width {width} is not a multiple of {heads} heads: choose another `heads`.")
        self.width, self.n_tokens = width, n_queries
        self.queries = nn.Parameter(torch.empty(n_queries, width))
        self.empty = nn.Parameter(torch.empty(width))
        self.input_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, heads, depth=layers) for _ in range(layers))
        self.output = nn.Linear(width, llm_width)
        self.log_scale = nn.Parameter(torch.full((n_queries, 1), math.log(token_rms)))
        nn.init.normal_(self.queries, std=_QUERY_STD)
        nn.init.normal_(self.empty, std=_EMPTY_STD)
        _gaussian_linear(self.output)

    def forward(self, states: Tensor, offsets: Tensor) -> Tensor:
        """States (T, width), int64 offsets (B+1,) → (B, n_tokens, llm_width)."""
        memory, valid = self._pad(self.input_norm(states), offsets)
        x = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            x = layer(x, memory, valid)
        return _unit_rms(self.output(x)) * self.log_scale.exp()

    def _pad(self, states: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Padded states (B, L, width) and the mask (B, L) of what may be read; no row of the mask is empty."""
        lengths = offsets.diff()
        longest = max(1, int(lengths.max()) if len(lengths) else 1)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=states.device), lengths)
        position = torch.arange(len(states), device=states.device) - offsets[:-1][owner]
        memory = states.new_zeros(len(lengths), longest, self.width)
        memory = memory.index_put((owner, position), states)
        nothing = lengths == 0
        first = torch.where(nothing[:, None], self.empty.to(states.dtype), memory[:, 0])
        memory = torch.cat([first[:, None], memory[:, 1:]], dim=1)
        return memory, torch.arange(longest, device=states.device) < lengths.clamp(min=1)[:, None]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, *, depth: int) -> None:
        super().__init__()
        self.cross_norm = nn.LayerNorm(width)
        self.cross = _Attention(width, heads)
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = _Attention(width, heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        # Three residual halves a layer: their sum keeps unit variance however many layers there are.
        shrink = 1 / math.sqrt(3 * depth)
        for linear, gain in ((self.cross.out, shrink), (self.self_attention.out, shrink), (self.up, 1.0)):
            _gaussian_linear(linear, gain)
        _gaussian_linear(self.down, shrink)

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor) -> Tensor:
        x = x + self.cross(self.cross_norm(x), memory, valid)
        y = self.self_norm(x)
        x = x + self.self_attention(y, y)
        return x + self.down(F.gelu(self.up(self.ffn_norm(x))))


class _Attention(nn.Module):
    """Multi-head attention of x (B, M, width) over memory (B, L, width), softmax in float32."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        for linear in (self.query, self.key, self.value):
            _gaussian_linear(linear)

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor | None = None) -> Tensor:
        q, k = _unit_rms(self._split(self.query(x))), _unit_rms(self._split(self.key(memory)))
        v = self._split(self.value(memory))
        logits = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
        if valid is not None:
            logits = logits.masked_fill(~valid[:, None, None], -math.inf)
        weights = logits.softmax(dim=-1).to(v.dtype)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, M, width) → (B, heads, M, head width)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _gaussian_linear(linear: nn.Linear, gain: float = 1.0) -> None:
    """Gaussian weights that keep the variance of their input times gain², zero bias."""
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)


def _unit_rms(x: Tensor, eps: float = 1e-6) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype)
