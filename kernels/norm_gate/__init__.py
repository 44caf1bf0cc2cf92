"""HSTU's gate: U * LayerNorm(attention) (Zhai et al. 2024, "Actions Speak Louder than Words", equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_finite, check_rows, check_same, check_tensor
from .operator import NORM_GATE

__all__ = ["norm_gate"]


def norm_gate(x: Tensor, gate: Tensor, eps: float = 1e-6, dropout_p: float = 0.0, seed: Tensor | None = None) -> Tensor:
    """`dropout(LayerNorm(x) * gate)` over the last dimension; the normalisation has no weight and no bias.

    The gate is used as given: HSTU's U has passed SiLU already, with V, Q and K (equation 2). Dropout follows from the
    seed and an element's index (kernels/philox.py): every backend drops the same ones, backward draws them again.

    Args:
        x, gate: (..., d), floating, one dtype; d spans all heads. Rows may be strided, the last dimension not.
        eps: added to the variance.
        dropout_p: the probability to drop an element, 0 <= dropout_p < 1, in steps of 2**-16.
        seed: int64 scalar on the device of x, needed with dropout: `torch.randint(2**62, (), device=x.device)`. On the
            device, so that neither a call nor a graph's replay waits for it.

    Returns:
        (..., d), the dtype of x. The compiled kernels' results have no second derivatives; the native one's does not
        depend on the number of threads.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or value; it is named.
    """
    check_rows(x, "x")
    check_tensor(gate, "gate", x.shape)
    check_same(x, "x", gate=gate)
    check_finite(eps, "eps")
    if dropout_p == 0:
        return NORM_GATE.of(x)(x, gate, float(eps), 0.0, None)
    check_finite(dropout_p, "dropout_p")
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be from 0 to below 1, not {dropout_p}.")
    if seed is None:
        raise ValueError("seed must be given with dropout: an int64 scalar on the device of x.")
    check_tensor(seed, "seed", (), (torch.int64,))
    check_same(x, "x", dtype=False, seed=seed)
    return NORM_GATE.of(x)(x, gate, float(eps), float(dropout_p), seed)
