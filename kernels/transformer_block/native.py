"""swiglu and rope by the C++ kernels (csrc/cpu/{swiglu,rope}.cpp): fp32 and bf16 on CPU."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..checks import host_longest
from ..native import NativeOp, call, empty_like, native_op, uninitialised
from ..rows import as_rows, dense_rows


@native_op("swiglu")
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up; arguments are checked by the caller."""
    y = uninitialised(gate)
    call("swiglu_forward", as_rows(y), as_rows(gate), as_rows(up))
    return y


@swiglu.register_fake
def _(gate, up):
    return uninitialised(gate)


@native_op("swiglu_backward")
def _swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up, with the gate's sigmoid recomputed."""
    dgate, dup = empty_like(gate, up)
    call("swiglu_backward", as_rows(dgate), as_rows(dup), as_rows(grad), as_rows(gate), as_rows(up))
    return dgate, dup


@_swiglu_backward.register_fake
def _(grad, gate, up):
    return empty_like(gate, up)


def register_swiglu_gradient(forward: NativeOp, backward: NativeOp) -> None:
    """Makes `backward` the gradient of `forward`, two operators with the arguments of this module's."""

    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx, grad):
        return backward(grad, *ctx.saved_tensors)

    forward.register_autograd(differentiate, setup_context=setup_context)


register_swiglu_gradient(swiglu, _swiglu_backward)


def rope(q: Tensor, k: Tensor, offsets: Tensor, base: float) -> tuple[Tensor, Tensor]:
    return _rotate(q, k, offsets, base, False)


@native_op("rope")
def _rotate(q: Tensor, k: Tensor, offsets: Tensor, base: float, is_inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k rotated by the angles of their positions, or back; arguments are checked by the caller."""
    table = _cosines_and_sines(1 << max(host_longest(offsets) - 1, 0).bit_length(), q.shape[-1], base)
    rotated = empty_like(q, k)
    call("rope", *rotated, dense_rows(q), dense_rows(k), table, offsets, is_inverse)
    return rotated


@_rotate.register_fake
def _(q, k, offsets, base, is_inverse):
    return empty_like(q, k)


@lru_cache(maxsize=8)  # 8 tables of positions * D floats, 256 KiB each for 1,024 positions of 64
def _cosines_and_sines(positions: int, width: int, base: float) -> Tensor:
    """The cosines, then the sines, of each position's width / 2 angles: (positions, width) float32."""
    steps = torch.arange(max(positions, width // 2), dtype=torch.float64, device="cpu")
    frequencies = base ** (-2 / width * steps[: width // 2])
    angles = steps[:positions, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()


def register_rope_gradient(rotate: NativeOp) -> None:
    """A rotation's transpose is its inverse."""

    def setup_context(ctx, inputs, output) -> None:
        _, _, offsets, ctx.base, ctx.is_inverse = inputs
        ctx.save_for_backward(offsets)

    def differentiate(ctx, dq, dk):
        return *rotate(dq, dk, *ctx.saved_tensors, ctx.base, not ctx.is_inverse), None, None, None

    rotate.register_autograd(differentiate, setup_context=setup_context)


register_rope_gradient(_rotate)
