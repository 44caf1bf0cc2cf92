"""The gated linear unit of a Transformer's feed-forward layer (Shazeer 2020)."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_rows, check_same, check_tensor
from .operator import SWIGLU

__all__ = ["swiglu"]


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """`SiLU(gate) * up` (Shazeer 2020, equation 6, between the projections).

    Args:
        gate, up: (..., d), floating, one dtype and shape. Rows may be strided, the last dimension not. Without `up`,
            `gate` (..., 2 d) has both side by side, as one product makes them, and so has its gradient.

    Returns:
        (..., d), the same dtype. The compiled kernels' results have no second derivatives.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(gate, "gate")
    if up is None:
        if gate.shape[-1] % 2:
            raise ValueError(f"gate must have an even last dimension where there is no up, not {gate.shape[-1]}.")
    else:
        check_tensor(up, "up", gate.shape)
        check_same(gate, "gate", up=up)
    return SWIGLU.of(gate)(gate, up)
