"""What one declaration gives: torch's operator, its fake kernel, its autograd, and the backends' modules."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from uqabench.kernels.operator import Kernel


def parts(x: Tensor, scale: float, limit: Tensor | None, keep: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    has_rest = limit is not None
    return torch.empty_like(x), torch.empty_like(x) if has_rest else None, torch.empty_like(x) if keep else None


def gradients(
    grad_low: Tensor, grad_rest: Tensor | None, twice: Tensor, scale: float, limit: Tensor | None, needs_limit: bool
) -> tuple[Tensor, Tensor | None]:
    return torch.empty_like(twice), torch.empty_like(limit) if needs_limit else None


def forward(x, scale, limit, keep):
    """scale * x; min(x, limit) - x where there is a limit."""
    return scale * x, None if limit is None else torch.minimum(x, limit) - x, 2 * x if keep else None


def backward(grad_low, grad_rest, twice, scale, limit, needs_limit):
    above = None if limit is None else twice / 2 > limit
    dx = scale * grad_low if grad_rest is None else scale * grad_low - above * grad_rest
    return dx, above * (torch.zeros_like(grad_low) if grad_rest is None else grad_rest) if needs_limit else None


@pytest.fixture(scope="module")
def kernel():
    module = ModuleType("test_operator_backends.native")
    module.forward, module.backward = forward, backward
    sys.modules[module.__name__] = module
    yield Kernel(
        "test_parts",
        "test_operator_backends",
        parts,
        results=("low", "rest"),
        kept=("twice",),
        gradients=gradients,
        of=("x", "limit"),
    )
    del sys.modules[module.__name__]


X, LIMIT = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.5, 2.5, 2.5])


def call(kernel: Kernel, *args: object) -> tuple[Tensor, Tensor | None]:
    return kernel("native", *args)


def test_results_that_are_not_wanted(kernel):
    assert call(kernel, X, 3.0, None)[1] is None
    assert call(kernel, X, 3.0, LIMIT)[1].tolist() == [0.0, 0.0, -0.5]
    assert len(call(kernel, X, 3.0, None)) == 2, "what is kept for the gradient is not returned"
    low, rest, twice = kernel.op(X, 3.0, None, False, "native")
    assert rest.shape == twice.shape == (0,)


@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("used", ["low", "rest", "both"])
def test_gradients_where_only_some_results_are_used(kernel, limit, used):
    if limit is None and used != "low":
        pytest.skip("the second result is not there")

    def value(run, *leaves: Tensor) -> Tensor:
        low, rest = run(*leaves)
        return sum((y * y).sum() for y in {"low": (low,), "rest": (rest,), "both": (low, rest)}[used])

    leaves = [x.clone().requires_grad_() for x in (X, limit) if x is not None]
    plain = value(lambda x, limit=None: (3.0 * x, None if limit is None else torch.minimum(x, limit) - x), *leaves)
    found = value(lambda x, limit=None: call(kernel, x, 3.0, limit), *leaves)
    expected = torch.autograd.grad(plain, leaves, allow_unused=True, materialize_grads=True)
    for got, want in zip(torch.autograd.grad(found, leaves, materialize_grads=True), expected, strict=True):
        assert torch.equal(got, want)


def test_frozen_inputs_get_no_gradient_and_none_are_differentiated_twice(kernel):
    x, limit = X.clone().requires_grad_(), LIMIT.clone()
    low, rest = call(kernel, x, 3.0, limit)
    (dx,) = torch.autograd.grad((low * low + rest).sum(), x, create_graph=True)
    assert limit.grad is None
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_passes_torchs_own_checks_and_compiles(kernel, limit):
    leaves = (X.clone().requires_grad_(), 3.0, None if limit is None else limit.clone().requires_grad_())
    torch.library.opcheck(kernel.op, (*leaves, True, "native"))

    def loss(x: Tensor, limit: Tensor | None) -> Tensor:
        low, rest = call(kernel, x, 3.0, limit)
        return low.square().sum() if limit is None else (low * rest).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    inputs = [x for x in (leaves[0], leaves[2]) if x is not None]
    results = [torch.autograd.grad(run(leaves[0], leaves[2]), inputs) for run in (loss, compiled)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_gradient_needs_what_it_was_not_told_to_keep(kernel):
    with pytest.raises(RuntimeError, match="test_parts has gradients only if"):
        kernel.op(X.clone().requires_grad_(), 3.0, None, False, "native")
