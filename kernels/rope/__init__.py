"""Rotary position embedding (Su et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import choose
from ..checks import check_heads, check_offsets, check_positive, check_same, check_tensor
from . import eager
from .operator import ROPE, Angles, angles_of

__all__ = ["rope"]


def rope(
    q: Tensor, k: Tensor, offsets: Tensor, base: float = 10000.0, angles: Angles | None = None
) -> tuple[Tensor, Tensor]:
    """Rotary position embedding (Su et al. 2021, section 3.4.2) of q and k; positions begin at 0 in each sequence.

    Half-split layout: component c is rotated with component c + D/2, by the angle position * base^(-2c/D).

    Args:
        q: (T, H, D), floating, D even; rows may be strided, the last dimension not.
        k: (T, Hk, D), same dtype; Hk may differ from H.
        offsets: int64 (B+1,), from 0 to T.
        base: the slowest pair turns once in about 2 pi * base tokens.
        angles: what `rope_angles` made for these offsets, D and base; None: the GPU kernel's are kept on the offsets.

    Returns:
        The rotated (q, k), in their dtype. Angles and rotation are fp32 (float64 for float64 input); the native
        kernel's angles are float64, and it takes their cosines and sines from tables, the last 8 of which are kept;
        the GPU kernel's are exact modulo a turn to 2**-40 turns.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
    """
    check_heads(q, "q")
    if q.shape[-1] % 2:
        raise ValueError(f"q must have an even last dimension, not {q.shape[-1]}: rope rotates pairs.")
    check_heads(k, "k", (q.shape[0], None, q.shape[-1]))
    check_same(q, "q", k=k)
    check_offsets(offsets, q)
    check_positive(base, "base")
    if angles is not None:
        check_tensor(angles.positions, "angles.positions", (q.shape[0],), (torch.int32,))
        check_tensor(angles.table, "angles.table", (None, q.shape[-1]), (torch.float32,))
        check_same(q, "q", dtype=False, positions=angles.positions, table=angles.table)
    return ROPE.of(q)(q, k, offsets, float(base), angles)


def rope_angles(x: Tensor, offsets: Tensor, width: int, base: float = 10000.0) -> Angles | None:
    """What `rope` of heads of `width` needs to know of a batch, in one launch, to be handed to each layer's call.

    None where rope has other means than a GPU kernel for tokens x (T, ...) of that device and dtype.
    """
    if choose("rope", x.device.type, x.dtype) != "triton":
        return None
    check_offsets(offsets, x)
    return angles_of(offsets, x.shape[0], width, float(base))


def rope_at(q: Tensor, k: Tensor, position: Tensor, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """`rope` at the positions int64 (T,), in plain torch: for tokens that continue sequences."""
    check_tensor(position, "position", (q.shape[0],), (torch.int64,))
    check_same(q, "q", dtype=False, position=position)
    return eager.rope_at(q, k, position, base)
