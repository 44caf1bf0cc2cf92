"""A Q-Former: learned queries read all states by cross-attention.

The paper (§4.3.2) compares it with mean pooling, and reports that it is sensitive to the learning rate and ends in NaN
losses.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.errors import InputError
from uqabench.integrations.base import Integration, IntegrationSettings, TrainingHistories
from uqabench.integrations.linear import LinearTokens, check_sizes
from uqabench.integrations.pooling import Window, window_means, window_name
from uqabench.integrations.registry import register
from uqabench.integrations.ridge import RidgeFit, fit_ridge
from uqabench.integrations.segments import WINDOWS
from uqabench.kernels.checks import host_longest

_EMPTY_STD = 0.02
# Small enough that what a sequence says outweighs the queries (84 % of the output's variance is across users at width
# 512, against 17 % with std 1), large enough that the queries differ from the start (12 %, against 1 % with std 0.02).
_QUERY_STD = 0.2
_DISTANCES = tuple(window for window in reversed(WINDOWS) if window is not None)  # where a new column of recency begins
_OUTSIDE = -16.0  # logit outside a window at the start: all of a thousand states there weigh 1e-4 of one inside
_HISTORIES_AT_ONCE = 1024
_SMALLEST = 1e-8  # root mean square of tokens whose regression found nothing


@register("q-former")
class QFormer(Integration):
    """`n_queries` soft tokens that a small transformer reads from all states, starting from those of `segments`."""

    def n_tokens(self, settings: IntegrationSettings) -> int:
        return settings.n_queries

    def build(self, width: int, llm_width: int, token_rms: float, settings: IntegrationSettings) -> QFormerAdapter:
        heads = math.gcd(width, 8)  # eight where the width allows it
        return QFormerAdapter(width, llm_width, token_rms, n_queries=settings.n_queries, heads=heads)

    def initialise(self, adapter: nn.Module, histories: TrainingHistories) -> dict[str, float]:
        """Start where each query reads one window of `segments`, by a ridge regression onto that window's items.

        Queries to spare read the whole history; with fewer queries than windows the longest but the whole are left
        out. Metrics `ridge_*` of `RidgeFit` with the window's name behind a dot.
        """
        windows = query_windows(adapter.n_tokens)
        adapter.start_from_windows(windows)
        distinct = tuple(dict.fromkeys(windows))
        pooling = window_means(*distinct)
        pooled, device = [], adapter.queries.device
        with torch.no_grad():
            for rows in torch.arange(len(histories.users)).split(_HISTORIES_AT_ONCE):
                states, offsets = (part.to(device) for part in histories.inputs(rows))
                pooled.append(pooling(adapter.input_norm(states), offsets).cpu())
        features = torch.cat(pooled)
        metrics: dict[str, float] = {}
        for i, window in enumerate(distinct):
            fit = fit_ridge(features[:, i], histories.vectors(window), groups=histories.users)
            rms = float((features[:, i].double() @ fit.weight.T + fit.bias).square().mean().sqrt().clamp(min=_SMALLEST))
            for query, reads in enumerate(windows):
                if reads == window:
                    adapter.start_output_at(query, fit, rms)
            metrics |= {f"{name}.{window_name(window)}": value for name, value in fit.metrics().items()}
        return metrics


def query_windows(n_queries: int) -> tuple[Window, ...]:
    """The window (n_queries,) that each query starts with: those of `segments` last, the whole history before."""
    spare = n_queries - len(WINDOWS)
    if spare >= 0:
        return (None,) * spare + WINDOWS
    return (None, *WINDOWS[len(WINDOWS) - n_queries + 1 :])


class QFormerAdapter(nn.Module):
    """`n_queries` soft tokens: learned queries that read a sequence's states by cross-attention.

    Each layer is pre-norm cross-attention, self-attention among the queries, and a feed-forward half; each query has
    an output Linear of its own. A cross-attention logit is `content` times the likeness of query and state, plus
    `recency` of the query at the state's distance from the end, in distances that double (0, 1, 2–3, 4–7, … 64 and
    more): states of most encoders do not say how far from the end they stand.

    What keeps training finite at learning rates from 1e-5 to 1e-2, whatever the scale of the encoder's states:
    LayerNorm on the states; every residual half normalises its input; queries and keys are normalised a head, so their
    product is at most sqrt(head width) in size; softmax in float32; and the tokens leave with an RMS between a quarter
    and four times exp(log_scale), which starts at `token_rms` (RMS of the language model's token embeddings) and which
    a step of size lr changes by the factor exp(±lr), however small the embeddings are.

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
        self.layers = nn.ModuleList(_Layer(width, heads, n_queries, depth=layers) for _ in range(layers))
        self.output = LinearTokens(n_queries, width, llm_width, token_rms=1.0)
        self.log_scale = nn.Parameter(torch.full((n_queries, 1), math.log(token_rms)))
        nn.init.normal_(self.queries, std=_QUERY_STD)
        nn.init.normal_(self.empty, std=_EMPTY_STD)
        _gaussian_linear(self.output.linear, gain=1.8)  # the last layer leaves a root mean square of about 0.55

    def forward(self, states: Tensor, offsets: Tensor) -> Tensor:
        """States (T, width), int64 offsets (B+1,) → (B, n_tokens, llm_width)."""
        memory, distance = self._pad(self.input_norm(states), offsets)
        x = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            x = layer(x, memory, distance)
        return _bounded_rms(self.output(x)) * self.log_scale.exp()

    @torch.no_grad()
    def start_from_windows(self, windows: tuple[Window, ...]) -> None:
        """Let each query's residual stream be itself plus the mean of the normalised states of its window.

        The first layer's cross-attention is uniform inside the window and passes its values on; all other halves add
        nothing yet, but learn from the first step on.
        """
        first = self.layers[0]
        limits = torch.tensor([math.inf if window is None else window for window in windows])
        nearest = torch.tensor([0.0, *_DISTANCES])  # of each column of `recency`
        first.recency.copy_(torch.where(nearest < limits[:, None], 0.0, _OUTSIDE))
        first.content.zero_()
        for linear in (first.cross.value, first.cross.out):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        silent = [half for layer in self.layers for half in (layer.self_attention.out, layer.down)]
        for linear in [*silent, *(layer.cross.out for layer in self.layers[1:])]:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    @torch.no_grad()
    def start_output_at(self, query: int, fit: RidgeFit, rms: float) -> None:
        """Let one query's token be a regression of its window's mean, of this root mean square."""
        bias = fit.bias - fit.weight @ self.queries[query].cpu().double()
        self.output.start_at(query, replace(fit, weight=fit.weight / rms, bias=bias / rms))
        self.log_scale[query] = math.log(rms)

    def _pad(self, states: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Padded states (B, L, width), and how far from its sequence's end each stands (B, L): below zero for a pad.

        An empty sequence has one state, the learned one.
        """
        lengths = offsets.diff()
        longest = max(1, host_longest(offsets))
        places = torch.arange(len(lengths), device=states.device)
        owner = torch.repeat_interleave(places, lengths, output_size=len(states))
        position = torch.arange(len(states), device=states.device) - offsets[:-1][owner]
        memory = states.new_zeros(len(lengths), longest, self.width)
        memory = memory.index_put((owner, position), states)
        nothing = lengths == 0
        first = torch.where(nothing[:, None], self.empty.to(states.dtype), memory[:, 0])
        memory = torch.cat([first[:, None], memory[:, 1:]], dim=1)
        return memory, lengths.clamp(min=1)[:, None] - 1 - torch.arange(longest, device=states.device)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, n_queries: int, *, depth: int) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.ones(()))
        self.recency = nn.Parameter(torch.zeros(n_queries, len(_DISTANCES) + 1))
        self.register_buffer("distances", torch.tensor(_DISTANCES), persistent=False)
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

    def forward(self, x: Tensor, memory: Tensor, distance: Tensor) -> Tensor:
        x = x + self.cross(self.cross_norm(x), memory, gain=self.content, bias=self._bias(distance))
        y = self.self_norm(x)
        x = x + self.self_attention(y, y)
        return x + self.down(F.gelu(self.up(self.ffn_norm(x))))

    def _bias(self, distance: Tensor) -> Tensor:
        """What the logits of states at these distances (B, L) get on top: (B, 1, n_queries, L), −∞ for pads."""
        column = torch.bucketize(distance, self.distances, right=True)
        bias = self.recency.float().t()[column].transpose(1, 2)
        return bias.masked_fill(distance[:, None] < 0, -math.inf)[:, None]


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

    def forward(self, x: Tensor, memory: Tensor, gain: Tensor | float = 1.0, bias: Tensor | None = None) -> Tensor:
        """Attention with logits `gain` · q·k / sqrt(head width) + `bias` (broadcast to (B, heads, M, L))."""
        q, k = _unit_rms(self._split(self.query(x))), _unit_rms(self._split(self.key(memory)))
        v = self._split(self.value(memory))
        logits = gain * (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
        if bias is not None:
            logits = logits + bias
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


def _bounded_rms(x: Tensor, most: float = 4.0) -> Tensor:
    """The last dimension scaled where its root mean square lies outside [1 / most, most], to the nearer bound."""
    wide = x.float()
    rms = (wide.square().mean(dim=-1, keepdim=True) + 1e-12).sqrt()
    return (wide * (rms.clamp(1 / most, most) / rms)).to(x.dtype)
