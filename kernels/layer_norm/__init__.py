"""Layer normalisation (Ba et al. 2016)."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_finite, check_rows, check_same, check_tensor
from .operator import LAYER_NORM

__all__ = ["layer_norm"]


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """`(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension; biased variance, fp32 statistics.

    Args:
        x: (..., d), floating, d >= 1.
        weight, bias: (d,), the dtype of x, or None for 1 and 0.
        eps: added to the variance; HSTU's layers use 1e-6, torch's default is 1e-5.

    Returns:
        (..., d), the dtype of x. The compiled kernels' results have no second derivatives; the native one's does not
        depend on the number of threads.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(x, "x")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            check_tensor(parameter, name, (x.shape[-1],))
    check_same(x, "x", weight=weight, bias=bias)
    check_finite(eps, "eps")
    return LAYER_NORM.of(x)(x, weight, bias, float(eps))
