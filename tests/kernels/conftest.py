"""Comparing a backend with an operator's float64 reference, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor

from uqabench.kernels import use_backend
from uqabench.kernels.backend import native_module

Call = Callable[..., Tensor | tuple[Tensor, ...]]
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2}


def outputs_and_gradients(call: Call, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`call(**inputs)`, and the gradient of a fixed random weighting of all that it returns to each floating input."""
    leaves = {name: x.detach().requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}
    returned = call(**leaves)
    outputs = returned if isinstance(returned, tuple) else (returned,)
    results = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    if any(y.requires_grad for y in outputs):
        generator = torch.Generator().manual_seed(0)
        weights = (torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.device) for y in outputs)
        loss = sum((y.double() * w).sum() for y, w in zip(outputs, weights, strict=True))
        leaves = {name: x for name, x in leaves.items() if x.requires_grad}
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        results |= {f"gradient of {name}": g.to_dense() for name, g in zip(leaves, gradients, strict=True)}
    return results


def reference_results(call: Call, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the reference returns on the same numbers in float64."""
    with use_backend("reference"):
        return outputs_and_gradients(
            call, {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        )


def assert_close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """The same results, each within `tolerance` of its largest value."""
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(
            actual[name].double(), want.double(), rtol=tolerance, atol=tolerance * scale,
            msg=lambda m, n=name: f"{n}: {m}",
        )  # fmt: skip


def assert_matches_reference(call: Call, inputs: Mapping[str, Tensor], backend: str) -> None:
    """`backend` agrees with the reference, to the tolerance of the first input's dtype."""
    expected = reference_results(call, inputs)
    with use_backend(backend):
        actual = outputs_and_gradients(call, inputs)
    assert_close(actual, expected, TOLERANCES[next(iter(inputs.values())).dtype])


def assert_same_bits(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        assert torch.equal(actual[name], want), name


@pytest.fixture
def matches_reference() -> Callable[[Call, Mapping[str, Tensor], str], None]:
    return assert_matches_reference


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """`threads(n)` sets torch's number of threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=native_module().instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine runs, in use during the test."""
    widest = native_module().instruction_set()
    native_module().set_instruction_set(request.param)
    yield request.param
    native_module().set_instruction_set(widest)
