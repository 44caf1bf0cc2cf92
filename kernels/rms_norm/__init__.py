"""Normalisation by the root mean square (Zhang and Sennrich 2019)."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_finite, check_rows, check_same, check_tensor
from .operator import RMS_NORM

__all__ = ["rms_norm"]


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
    return RMS_NORM.of(x)(x, weight, float(eps), residual)
