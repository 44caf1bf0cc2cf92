"""The parts of a pre-norm Transformer block beside attention: rms_norm, rope, swiglu."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import check_finite, check_heads, check_offsets, check_positive, check_rows, check_same, check_tensor
from ..native import ROW_DTYPES
from . import eager, native, native_rms_norm, reference, triton, triton_rms_norm

__all__ = ["rms_norm", "rope", "swiglu"]

_COMPILED = {
    "default": {"cpu": "native", "cuda": "triton"},
    "dtypes": {"native": ROW_DTYPES, "triton": (torch.float32, torch.bfloat16, torch.float16)},
}
_RMS_NORM = Operator(
    "rms_norm",
    backends={
        "reference": reference.rms_norm,
        "eager": eager.rms_norm,
        "native": native_rms_norm.rms_norm,
        "triton": triton_rms_norm.rms_norm,
    },
    **_COMPILED,
)
_ROPE = Operator(
    "rope",
    backends={"reference": reference.rope, "eager": eager.rope, "native": native.rope, "triton": triton.rope},
    **_COMPILED,
)
_SWIGLU = Operator(
    "swiglu",
    backends={"reference": reference.swiglu, "eager": eager.swiglu, "native": native.swiglu, "triton": triton.swiglu},
    **_COMPILED,
)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float = 1e-5, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """`s / sqrt(mean(s^2) + eps) * weight` over the last dimension, s = x + residual (Zhang and Sennrich 2019).

    Args:
        x: (..., d), floating, d >= 1.
        weight: (d,), the dtype of x.
        eps: added to the mean square.
        residual: like x, or None for 0.

    Returns:
        (..., d) in the dtype of x; with `residual` the pair of that and s, which is the block's next residual. The
        compiled kernels' results have no second derivatives; the native one's does not depend on the number of threads.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(x, "x")
    check_tensor(weight, "weight", (x.shape[-1],))
    if residual is not None:
        check_tensor(residual, "residual", x.shape)
    check_same(x, "x", weight=weight, residual=residual)
    check_finite(eps, "eps")
    return _RMS_NORM.of(x)(x, weight, float(eps), residual)


def rope(q: Tensor, k: Tensor, offsets: Tensor, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Rotary position embedding (Su et al. 2021, section 3.4.2) of q and k; positions begin at 0 in each sequence.

    Half-split layout: component c is rotated with component c + D/2, by the angle position * base^(-2c/D).

    Args:
        q: (T, H, D), floating, D even; rows may be strided, the last dimension not.
        k: (T, Hk, D), same dtype; Hk may differ from H.
        offsets: int64 (B+1,), from 0 to T.
        base: the slowest pair turns once in about 2 pi * base tokens.

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
    return _ROPE.of(q)(q, k, offsets, float(base))


def rope_at(q: Tensor, k: Tensor, position: Tensor, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """`rope` at the positions int64 (T,), in plain torch: for tokens that continue sequences."""
    check_tensor(position, "position", (q.shape[0],), (torch.int64,))
    check_same(q, "q", dtype=False, position=position)
    return eager.rope_at(q, k, position, base)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`SiLU(gate) * up` (Shazeer 2020, equation 6, between the projections).

    Args:
        gate, up: (..., d), floating, one dtype and shape. Rows may be strided, the last dimension not.

    Returns:
        (..., d), the same dtype. The compiled kernels' results have no second derivatives.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(gate, "gate")
    check_tensor(up, "up", gate.shape)
    check_same(gate, "gate", up=up)
    return _SWIGLU.of(gate)(gate, up)
