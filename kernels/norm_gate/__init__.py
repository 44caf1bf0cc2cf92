"""HSTU's gate: U * LayerNorm(attention) (Zhai et al. 2024, "Actions Speak Louder than Words", equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import check_finite, check_rows, check_same, check_tensor
from . import eager, native, reference, triton

__all__ = ["norm_gate"]

_BACKENDS = Operator(
    "norm_gate",
    backends={
        "reference": reference.norm_gate,
        "eager": eager.norm_gate,
        "native": native.norm_gate,
        "triton": triton.norm_gate,
    },
    default={"cpu": "native", "cuda": "triton"},
    dtypes={"native": (torch.float32,), "triton": (torch.float32, torch.bfloat16, torch.float16)},
)


def norm_gate(x: Tensor, gate: Tensor, eps: float = 1e-6) -> Tensor:
    """`LayerNorm(x) * gate` over the last dimension; the normalisation has no weight and no bias.

    The gate is used as given: HSTU's U has passed SiLU already, with V, Q and K (equation 2).

    Args:
        x, gate: (..., d), floating, one dtype; d spans all heads. Rows may be strided, the last dimension not.
        eps: added to the variance.

    Returns:
        (..., d), the dtype of x. The compiled kernels' results have no second derivatives; the native one's does not
        depend on the number of threads.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device; it is named.
    """
    check_rows(x, "x")
    check_tensor(gate, "gate", x.shape)
    check_same(x, "x", gate=gate)
    check_finite(eps, "eps")
    return _BACKENDS(x.device.type, x.dtype)(x, gate, float(eps))
