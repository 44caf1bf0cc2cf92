"""Normalise and gate by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU, forward and backward.

Dropout is added in plain torch.
"""

from __future__ import annotations

from torch import Tensor

from .. import philox
from ..native import call, empty_like, empty_norm, native_op
from ..rows import as_rows


def norm_gate(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> Tensor:
    y = _forward(x, gate, eps)[0]
    return y if seed is None else philox.dropout(y, dropout_p, seed)


@native_op("norm_gate")
def _forward(x: Tensor, gate: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows); arguments are checked by the caller."""
    y, statistics = empty_norm(x, 2)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, None, None, as_rows(gate), eps)
    return y, statistics


@_forward.register_fake
def _(x, gate, eps):
    return empty_norm(x, 2)


@native_op("norm_gate_backward")
def _backward(grad: Tensor, x: Tensor, statistics: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and gate."""
    dx, dgate = empty_like(x, gate)
    inputs = (as_rows(grad), None, as_rows(x), statistics, None, as_rows(gate))
    call("norm_backward", as_rows(dx), as_rows(dgate), None, None, *inputs)
    return dx, dgate


@_backward.register_fake
def _(grad, x, statistics, gate):
    return empty_like(x, gate)


def _setup_context(ctx, inputs, output) -> None:
    x, gate, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[1], gate)


def _differentiate(ctx, grad, _):
    if grad is None:
        return None, None, None
    return *_backward(grad, *ctx.saved_tensors), None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
