"""What rope's backends have in common: a rotation, whose gradient is the rotation back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import are_values_hidden
from ..memory import known, remember
from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_like
from . import eager, reference


class Angles(NamedTuple):
    """positions: int32 (T,), each token's index in its sequence. table: float32 (P, D), the cosines and then the sines
    of a position's D / 2 angles, for all positions that there are."""

    positions: Tensor
    table: Tensor


def outputs(
    q: Tensor,
    k: Tensor,
    offsets: Tensor,
    base: float,
    is_inverse: bool,
    positions: Tensor | None,
    table: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return empty_like(q, k)


def _differentiate(
    grad_q_out: Tensor,
    grad_k_out: Tensor,
    offsets: Tensor,
    base: float,
    is_inverse: bool,
    positions: Tensor | None,
    table: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _ROTATION(backend, grad_q_out, grad_k_out, offsets, base, not is_inverse, positions, table)


def angle_outputs(offsets: Tensor, tokens: int, rows: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    return offsets.new_empty(tokens, dtype=torch.int32), offsets.new_empty(rows, width, dtype=torch.float32)


_ROTATION = Kernel(
    "rope", __package__, outputs, results=("q_out", "k_out"), differentiate=_differentiate, of=("q", "k")
)


_ANGLES = Kernel("rope_angles", __package__, angle_outputs, function="angles", results=("positions", "table"))


def angles_of(offsets: Tensor, tokens: int, width: int, base: float) -> Angles:
    """The GPU kernel's, kept on the offsets. Where the host knows no longest sequence, the table is for T positions."""
    if are_values_hidden(offsets):
        return Angles(*_ANGLES("triton", offsets, tokens, tokens, width, base))

    def make() -> Angles:
        return Angles(*_ANGLES("triton", offsets, tokens, known(offsets, "longest") or tokens, width, base))

    return remember(offsets, f"rope {tokens} {width} {base}", make)


def _rotate(
    backend: str, q: Tensor, k: Tensor, offsets: Tensor, base: float, angles: Angles | None
) -> tuple[Tensor, Tensor]:
    if backend == "triton" and angles is None:
        angles = angles_of(offsets, q.shape[0], q.shape[-1], base)
    return _ROTATION(backend, q, k, offsets, base, False, *(angles or (None, None)))


ROPE = declare(
    "rope",
    _rotate,
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.rope,
    eager=eager.rope,
)
