"""Comparing a backend with an operator's float64 reference, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from uqabench.kernels import use_backend

Call = Callable[..., Tensor | tuple[Tensor, ...]]
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2}


def outputs_and_gradients(call: Call, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`call(**inputs)`, and the gradient of a fixed random weighting of all that it returns to each input."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    returned = call(**leaves)
    outputs = returned if isinstance(returned, tuple) else (returned,)
    generator = torch.Generator().manual_seed(0)
    loss = sum((y.double() * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return {
        **{f"output {i}": y.detach() for i, y in enumerate(outputs)},
        **{f"gradient of {name}": g.to_dense() for name, g in zip(leaves, gradients, strict=True)},
    }


def assert_matches_reference(call: Call, inputs: Mapping[str, Tensor], backend: str) -> None:
    """`backend` agrees with the reference on the same numbers in float64, to its dtype's tolerance."""
    with use_backend("reference"):
        expected = outputs_and_gradients(call, {name: x.double() for name, x in inputs.items()})
    with use_backend(backend):
        actual = outputs_and_gradients(call, inputs)
    tolerance = TOLERANCES[next(iter(inputs.values())).dtype]
    for name, want in expected.items():
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(
            actual[name].double(), want, rtol=tolerance, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def matches_reference() -> Callable[[Call, Mapping[str, Tensor], str], None]:
    return assert_matches_reference
