"""SiLU of a projection: HSTU's U, V, Q, K (Zhai et al. 2024, "Actions Speak Louder than Words", equation 2)."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_rows, check_same, check_tensor
from .operator import LINEAR_SILU

__all__ = ["linear_silu"]


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`SiLU(x @ weight.T + bias)`.

    Args:
        x: (..., d), floating, d >= 1. Rows may be strided, the last dimension not.
        weight: (n, d), the dtype of x, as in `torch.nn.Linear`.
        bias: (n,), the dtype of x, or None for 0.

    Returns:
        (..., n), the dtype of x; sums in fp32 for bf16 and fp16. The GPU kernel's result has no second derivatives.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(x, "x")
    check_tensor(weight, "weight", (None, x.shape[-1]))
    if bias is not None:
        check_tensor(bias, "bias", weight.shape[:1])
    check_same(x, "x", weight=weight, bias=bias)
    return LINEAR_SILU.of(x)(x, weight, bias)
