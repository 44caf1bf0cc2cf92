"""swiglu and rope by Triton kernels (triton_swiglu.py, triton_rope.py): fp32, bf16 and fp16 on GPU, forward and
backward.
"""

from __future__ import annotations

from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from ..native import empty_like, native_op
from ..rows import dense_rows
from .native import register_rope_gradient, register_swiglu_gradient


@native_op("swiglu_triton")
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up; arguments are checked by the caller."""
    from . import triton_swiglu

    (y,) = empty_like(gate)
    triton_swiglu.forward(y, gate, up)
    return y


@swiglu.register_fake
def _(gate, up):
    return empty_like(gate)[0]


@native_op("swiglu_triton_backward")
def _swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; the gate's sigmoid is recomputed."""
    from . import triton_swiglu

    dgate, dup = empty_like(gate, up)
    triton_swiglu.backward(dgate, dup, grad, gate, up)
    return dgate, dup


@_swiglu_backward.register_fake
def _(grad, gate, up):
    return empty_like(gate, up)


register_swiglu_gradient(swiglu, _swiglu_backward)


def rope(q: Tensor, k: Tensor, offsets: Tensor, base: float) -> tuple[Tensor, Tensor]:
    return _rotate(q, k, offsets, base, False)


@native_op("rope_triton")
def _rotate(q: Tensor, k: Tensor, offsets: Tensor, base: float, is_inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k rotated by the angles of their positions, or back; arguments are checked by the caller."""
    from . import triton_rope

    rotated = empty_like(q, k)
    steps = _steps(q.shape[-1], base, q.device)
    triton_rope.rotate(*rotated, dense_rows(q), dense_rows(k), offsets, steps, is_inverse)
    return rotated


@_rotate.register_fake
def _(q, k, offsets, base, is_inverse):
    return empty_like(q, k)


@lru_cache(maxsize=16)
def _steps(width: int, base: float, device: torch.device) -> Tensor:
    """(width / 2,) int64: the angle between neighbouring positions for each pair, in turns / 2**64, modulo a turn.

    The integer product with the position is then exact modulo a turn, however large the position.
    """
    pairs = torch.arange(width // 2, dtype=torch.float64)
    turns = base ** (-2 / width * pairs) / (2 * pi)
    return ((turns - turns.round()) * 2.0**63).long().mul(2).to(device)


register_rope_gradient(_rotate)
