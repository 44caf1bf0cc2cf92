"""What rope's backends have in common: a rotation, whose gradient is the rotation back."""

from __future__ import annotations

from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_like
from . import eager, reference


def outputs(q: Tensor, k: Tensor, offsets: Tensor, base: float, is_inverse: bool) -> tuple[Tensor, Tensor]:
    return empty_like(q, k)


def _differentiate(
    grad_q_out: Tensor, grad_k_out: Tensor, offsets: Tensor, base: float, is_inverse: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return _ROTATION(backend, grad_q_out, grad_k_out, offsets, base, not is_inverse)


_ROTATION = Kernel(
    "rope", __package__, outputs, results=("q_out", "k_out"), differentiate=_differentiate, of=("q", "k")
)


def _rotate(backend: str, q: Tensor, k: Tensor, offsets: Tensor, base: float) -> tuple[Tensor, Tensor]:
    return _ROTATION(backend, q, k, offsets, base, False)


ROPE = declare(
    "rope",
    _rotate,
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.rope,
    eager=eager.rope,
)
