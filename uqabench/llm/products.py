"""Products of fp32 linear layers by oneDNN where torch would take a slower library.

torch multiplies fp32 matrices with MKL, which has no AVX-512 kernels for processors that are not Intel's: there
oneDNN's run at twice the rate (Zen 5, one thread: 104 and 225 GFLOP/s). The choice depends on the machine alone, never
on a timing, so that a run that goes on ends in the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_MANY_ROWS = 16  # with fewer rows the call itself costs more than the product
_FEW_ROWS, _FEW_STEP, _STEP = 512, 16, 128
"""Products have rows in multiples of 16 up to 512, of 128 beyond. oneDNN keeps code and memory for each of the last
thousand shapes it has met, which for batches of all lengths comes to gigabytes."""


def use_onednn(model: nn.Module) -> int:
    """Have oneDNN compute the fp32 linear layers of `model` on CPU; returns how many, 0 where torch is as fast.

    Layers keep their names, parameters and type (`nn.Linear`); results are equal to rounding. Under autocast and for
    other number formats the layers compute as before.
    """
    if not _is_faster():
        return 0
    layers = [module for module in model.modules() if type(module) is nn.Linear and _is_float32(module.weight)]
    for layer in layers:
        layer.__class__ = _OneDnnLinear
    return len(layers)


def _is_float32(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def _is_faster() -> bool:
    has_operator = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operator and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


class _OneDnnLinear(nn.Linear):
    """A linear layer that calls oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // max(1, self.in_features)
        if (
            rows < _MANY_ROWS
            or not _is_float32(input)
            or not _is_float32(self.weight)
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(input)
        return _Product.apply(input, self.weight, self.bias)


class _Product(torch.autograd.Function):
    """x (…, in), weight (out, in), bias (out,) or None → x @ weightᵀ + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        inputs = _padded(x.flatten(0, -2))
        ctx.save_for_backward(inputs, weight)
        ctx.shape = x.shape
        return _linear(inputs, weight, bias)[: x.shape[:-1].numel()].view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        rows = _padded(gradient.flatten(0, -2))
        if ctx.needs_input_grad[0]:
            of_x = _linear(rows, weight.t())[: ctx.shape[:-1].numel()].view(ctx.shape)
        if ctx.needs_input_grad[1]:
            # oneDNN copies a first argument that lies transposed: let it be the smaller one.
            if rows.shape[1] <= inputs.shape[1]:
                of_weight = _linear(rows.t(), inputs.t())
            else:
                of_weight = _linear(inputs.t(), rows.t()).t()
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias


def _padded(rows: Tensor) -> Tensor:
    """Rows (n, width) in one stretch of memory, with rows of zeros up to the next multiple."""
    missing = -len(rows) % (_FEW_STEP if len(rows) <= _FEW_ROWS else _STEP)
    return pad(rows, (0, 0, 0, missing)) if missing else rows.contiguous()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
