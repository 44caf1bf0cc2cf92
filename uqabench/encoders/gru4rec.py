"""GRU4Rec: gated recurrent units for sequential recommendation (arXiv:1511.06939), as published for UQABench."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import LayerNorm, as_product_input, cast, init_gaussian
from uqabench.encoders.registry import register
from uqabench.kernels import gru
from uqabench.settings.encoders import GRU4RecConfig


class GRULayer(nn.Module):
    """One layer without biases, h_t = (1 - z) n + z h_{t-1}; gates in the order r, z, n as in `torch.nn.GRU`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden))

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        x = as_product_input(x)
        weights = (cast(self.weight_ih, x), cast(self.weight_hh, x), None, None)
        with torch.autocast(x.device.type, enabled=False):  # the kernel chooses the precision of its own products
            return gru(x, [weights], offsets)


@register("gru4rec")
class GRU4Rec(nn.Module):
    """GRU layers with dropout on each layer's input, a Linear from `hidden` to `width`, a layer norm."""

    causal = True
    is_recurrent = True

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        inputs = [config.width] + [config.hidden] * (config.layers - 1)
        self.layers = nn.ModuleList(GRULayer(size, config.hidden) for size in inputs)
        self.dense = nn.Linear(config.hidden, config.width)
        self.norm = LayerNorm(config.width)
        init_gaussian(self, config.init_std)
        for parameter in self.layers.parameters():
            nn.init.normal_(parameter, std=config.init_std)

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width) and offsets int64 (B+1,) to states (T, width); `timestamps` are not used."""
        hidden = x
        for layer in self.layers:
            hidden = layer(F.dropout(hidden, self.config.dropout, self.training), offsets)
        return self.norm(cast(self.dense(hidden), x))
