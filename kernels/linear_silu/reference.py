"""The specification, in float64."""

from __future__ import annotations

from torch import Tensor


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = x.double() @ weight.double().T
    z = z if bias is None else z + bias.double()
    return (z * z.sigmoid()).to(x.dtype)
