from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from uqabench.kernels import linear_silu
from uqabench.kernels.backend import choose


def randn(*shapes, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(shape).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(0, 9), (1, 9), (33, 9), (2, 3, 9)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_matches_the_reference(matches_reference, shape, with_bias, dtype):
    x, weight, bias = randn(shape, (7, 9), (7,), dtype=dtype)
    inputs = {"x": x, "weight": weight / 3} | ({"bias": bias} if with_bias else {})
    matches_reference(linear_silu, inputs, "eager")


def test_on_cpus_it_is_torchs_projection_and_silu():
    x, weight, bias = randn((5, 9), (7, 9), (7,))
    assert choose("linear_silu", "cpu", torch.float32) == "eager"
    assert torch.equal(linear_silu(x, weight, bias), F.silu(F.linear(x, weight, bias)))


def test_gradcheck():
    assert torch.autograd.gradcheck(
        linear_silu, [t.requires_grad_() for t in randn((3, 4), (5, 4), (5,), dtype=torch.float64)]
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: linear_silu(x[0, 0], w), ValueError, r"x must have shape \(..., d\)"),
        (lambda x, w: linear_silu(x, w.T), ValueError, r"weight must have shape \(\*, 4\)"),
        (lambda x, w: linear_silu(x, w.double()), TypeError, "weight is float64, but x is float32"),
        (lambda x, w: linear_silu(x, w, w[0]), ValueError, r"bias must have shape \(6,\)"),
        (lambda x, w: linear_silu(x, w, w[:, 0].long()), TypeError, "bias must be float32"),
        (lambda x, w: linear_silu(x, w, w[:, 0].to("meta")), ValueError, "bias is on meta"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(5, 4), torch.zeros(6, 4))
