"""The gated linear unit of a Transformer's feed-forward layer (Shazeer 2020)."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_rows, check_same, check_tensor
from .operator import SWIGLU

__all__ = ["swiglu"]


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
    return SWIGLU.of(gate)(gate, up)
