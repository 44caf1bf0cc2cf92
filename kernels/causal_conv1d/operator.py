"""What the backends of the causal convolution have in common.

Bias and SiLU are part of the one pass over x. The input of SiLU is computed again for the gradient, so that only the
inputs are kept.
"""

from __future__ import annotations

from torch import Tensor

from ..operator import SINGLE, SINGLE_AND_BF16, Kernel, declare
from ..results import uninitialised
from . import eager, reference


def outputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """y (T, C), and the last state (B, C, K-1) if asked for."""
    shape = (offsets.shape[0] - 1, x.shape[1], weight.shape[1] - 1)
    return uninitialised(x), x.new_empty(shape) if return_state else None


def gradients(
    grad_y: Tensor,
    grad_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    of_initial = None if initial_state is None else uninitialised(initial_state)
    return uninitialised(x), uninitialised(weight), x.new_empty(x.shape[1]), of_initial


_KERNEL = Kernel(
    "causal_conv1d",
    __package__,
    outputs,
    results=("y", "state"),
    gradients=gradients,
    of=("x", "weight", "bias", "initial_state"),
)


def _run(
    backend: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    activation: str | None,
    initial_state: Tensor | None,
    return_state: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    if initial_state is not None:
        initial_state = initial_state.contiguous()
    results = _KERNEL(backend, x, weight, bias, offsets, activation == "silu", initial_state, return_state)
    return results if return_state else results[0]


CAUSAL_CONV1D = declare(
    "causal_conv1d",
    _run,
    {"native": SINGLE, "triton": SINGLE_AND_BF16},
    reference=reference.causal_conv1d,
    eager=eager.causal_conv1d,
)
