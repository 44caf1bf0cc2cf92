"""Normalisation by the root mean square (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import FLOATING, check_finite, check_rows, check_same, check_tensor
from .operator import RMS_NORM

__all__ = ["rms_norm"]


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`s / sqrt(mean(s^2) + eps) * weight` over the last dimension, s = x + residual (Zhang and Sennrich 2019).

    Args:
        x: (..., d), floating, d >= 1.
        weight: (d,), the dtype of s.
        eps: added to the mean square.
        residual: like x, or of a wider dtype, in which s is then summed and kept; None for 0.
        dtype: of the result, where there is no residual; None: that of x.

    Returns:
        (..., d) in `dtype`, or else in that of x; with `residual` the pair of that and s, the block's next residual, in
        the residual's dtype. The GPU kernels convert while they read and write; elsewhere that is a pass of its own.
        The compiled kernels' results have no second derivatives; the native one's does not depend on the number of
        threads.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(x, "x")
    check_tensor(weight, "weight", (x.shape[-1],))
    if residual is not None:
        check_tensor(residual, "residual", x.shape)
    if residual is None or residual.dtype is x.dtype:
        check_same(x, "x", weight=weight, residual=residual)
    else:
        check_same(x, "x", dtype=False, residual=residual)
        if torch.promote_types(x.dtype, residual.dtype) is not residual.dtype:
            raise TypeError(f"residual is {residual.dtype}, but must be as x, {x.dtype}, or of a wider dtype.")
        check_same(residual, "residual", weight=weight)
    check_finite(eps, "eps")
    if dtype is not None and (residual is not None or dtype not in FLOATING):
        raise TypeError(f"dtype must be a floating dtype, and is given without a residual only, not {dtype}.")
    stream = x if residual is None else residual
    return RMS_NORM.of(stream)(x, weight, float(eps), residual, dtype or x.dtype)
