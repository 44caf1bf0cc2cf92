"""SiLU of a projection by a Triton kernel (triton_forward.py), in bf16 and fp16; the products of the gradients are
torch's.

In float32 everything is torch's: the tensor cores have no exact product, and without them cuBLAS is faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import native_op
from . import eager


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.dtype == torch.float32:
        return eager.linear_silu(x, weight, bias)
    inputs = (x, weight, bias)
    is_training = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in inputs)
    return _forward(*inputs, is_training)[0]


@native_op("linear_silu_triton")
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, is_training: bool) -> tuple[Tensor, Tensor]:
    """The output and, for training, the input of SiLU, else an empty tensor."""
    from . import triton_forward

    y, z = _empty(x, weight, is_training)
    triton_forward.forward(y, z if is_training else None, x, weight, bias)
    return y, z


def _empty(x: Tensor, weight: Tensor, is_training: bool) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:-1], weight.shape[0])
    return x.new_empty(shape), x.new_empty(shape if is_training else 0)


@_forward.register_fake
def _(x, weight, bias, is_training):
    return _empty(x, weight, is_training)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, _, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, output[1])


def _differentiate(ctx, grad, _):
    if grad is None:
        return None, None, None, None
    x, weight, z = ctx.saved_tensors
    needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
    dz = torch.ops.aten.silu_backward(grad, z)  # one pass, fp32 inside
    rows = dz.reshape(-1, weight.shape[0])
    dx = dz @ weight if needs_x else None
    dweight = rows.T @ x.reshape(-1, x.shape[-1]) if needs_weight else None
    return dx, dweight, rows.sum(0) if needs_bias else None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
