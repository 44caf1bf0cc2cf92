"""SASRec: self-attentive sequential recommendation (arXiv:1808.09781, section III), in its post-norm form."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import (
    EMBEDDING_STD,
    LayerNorm,
    cast,
    check_longest,
    check_room,
    init_gaussian,
    places_behind,
    positions,
)
from uqabench.encoders.registry import register
from uqabench.kernels import causal_attention, causal_attention_step
from uqabench.kernels.key_values import KeyValues
from uqabench.settings.encoders import SASRecConfig


class SASRecLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + W2 ReLU(W1 x)): the arithmetic of `torch.nn.TransformerEncoderLayer`.

    Dropout falls on both residual branches and on the ReLU, not on attention probabilities: those never exist as a
    matrix.
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.up = nn.Linear(config.width, config.inner)
        self.down = nn.Linear(config.inner, config.width)
        self.norm1 = LayerNorm(config.width)
        self.norm2 = LayerNorm(config.width)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        return self._mix(x, causal_attention(*self._heads(x), offsets))

    def append(self, cache: KeyValues | None, x: Tensor, offsets: Tensor) -> tuple[Tensor, KeyValues]:
        attended, cache = causal_attention_step(*self._heads(x), offsets, cache)
        return self._mix(x, attended), cache

    def _heads(self, x: Tensor) -> Iterator[Tensor]:
        return (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(x).chunk(3, dim=-1))

    def _mix(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.norm1(x + self._drop(self.out(attended.reshape(x.shape))))
        return self.norm2(x + self._drop(self.down(self._drop(F.relu(self.up(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


@register("sasrec")
class SASRec(nn.Module):
    """Learned positions (counted from the start of each sequence), post-norm layers, a final layer norm."""

    causal = True

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.position_embedding = nn.Embedding(config.max_len, config.width)
        self.layers = nn.ModuleList(SASRecLayer(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.width)
        init_gaussian(self, config.init_std)
        # No larger than the items that they are added to, or the model reads little but positions for a long time.
        nn.init.normal_(self.position_embedding.weight, std=EMBEDDING_STD)

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width) and offsets int64 (B+1,) to states (T, width); `timestamps` are not used.

        Raises InputError when a sequence is longer than `max_len`.
        """
        check_longest(offsets, self.config.max_len, "SASRec")
        x = self._place(x, positions(offsets, x.shape[0]))
        for layer in self.layers:
            x = layer(x, offsets)
        return self.norm(x)

    def append(
        self, state: tuple[KeyValues, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """States of inputs that continue histories, and the histories' new state: keys and values of every layer.

        Raises InputError when a history gets longer than `max_len`.
        """
        caches = state or (None,) * len(self.layers)
        check_room(caches[0], offsets, self.config.max_len, "SASRec")
        x = self._place(x, places_behind(caches[0], offsets, x.shape[0]))
        kept = []
        for layer, cache in zip(self.layers, caches, strict=True):
            x, cache = layer.append(cache, x, offsets)
            kept.append(cache)
        return self.norm(x), tuple(kept)

    def _place(self, x: Tensor, place: Tensor) -> Tensor:
        return F.dropout(x + cast(self.position_embedding(place), x), self.config.dropout, self.training)
