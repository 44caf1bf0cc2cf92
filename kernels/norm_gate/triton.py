"""Normalise and gate by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU, forward and backward."""

from __future__ import annotations

from torch import Tensor

from ..native import empty_like, empty_norm, native_op


def norm_gate(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> Tensor:
    return _forward(x, gate, eps, dropout_p, seed)[0]


@native_op("norm_gate_triton")
def _forward(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows); arguments are checked by the caller."""
    from ..triton_norms import norm_forward

    y, statistics = empty_norm(x, 2)
    norm_forward(y, None, statistics, x, None, None, None, gate, eps, dropout_p, seed)
    return y, statistics


@_forward.register_fake
def _(x, gate, eps, dropout_p, seed):
    return empty_norm(x, 2)


@native_op("norm_gate_triton_backward")
def _backward(
    grad: Tensor, x: Tensor, statistics: Tensor, gate: Tensor, seed: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """Gradients of x and gate."""
    from ..triton_norms import norm_backward

    dx, dgate = empty_like(x, gate)
    norm_backward(dx, dgate, grad, None, x, statistics, None, gate, dropout_p=dropout_p, seed=seed)
    return dx, dgate


@_backward.register_fake
def _(grad, x, statistics, gate, seed, dropout_p):
    return empty_like(x, gate)


def _setup_context(ctx, inputs, output) -> None:
    x, gate, _, ctx.dropout_p, seed = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[1], gate, seed)


def _differentiate(ctx, grad, _):
    if grad is None:
        return None, None, None, None, None
    return *_backward(grad, *ctx.saved_tensors, ctx.dropout_p), None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
