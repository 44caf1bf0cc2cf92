"""linear_silu around its tiles' edges; the kernel itself in float32 too, which the operator leaves to torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from uqabench.kernels import linear_silu, use_backend

from ..conftest import TOLERANCES, assert_close, reference_results
from .conftest import DEVICE, gpu_results

pytest.importorskip("triton")

from uqabench.kernels.linear_silu import triton_forward  # noqa: E402

SIZES = [(1, 1, 1), (3, 16, 64), (127, 65, 129), (128, 64, 128), (129, 63, 127), (300, 130, 5)]  # rows, inner, columns
sizes = pytest.mark.parametrize(("rows", "width", "columns"), SIZES, ids=str)


def make_inputs(rows: int, width: int, columns: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    joint = torch.randn(rows, width + 3, generator=generator).to(dtype)
    weight = (torch.randn(columns, width + 5, generator=generator) / width**0.5).to(dtype)
    bias = torch.randn(columns, generator=generator).to(dtype)
    return {"x": joint[:, :width], "weight": weight[:, :width], "bias": bias}


@sizes
@pytest.mark.parametrize(("dtype", "with_bias"), [(torch.bfloat16, True), (torch.float16, False)], ids=str)
def test_matches_the_reference(rows, width, columns, dtype, with_bias):
    inputs = make_inputs(rows, width, columns, dtype)
    if not with_bias:
        del inputs["bias"]
    tolerance = TOLERANCES[torch.bfloat16] if dtype == torch.bfloat16 else 5e-3
    assert_close(gpu_results("triton", linear_silu, inputs), reference_results(linear_silu, inputs), tolerance)


@sizes
def test_the_kernel_is_as_exact_as_float32(rows, width, columns):
    inputs = {name: x.to(DEVICE) for name, x in make_inputs(rows, width, columns, torch.float32).items()}
    y, z = torch.empty(2, rows, columns, device=DEVICE)
    triton_forward.forward(y, z, **inputs)
    expected = F.linear(*(x.double() for x in inputs.values()))
    assert_close({"y": y, "z": z}, {"y": F.silu(expected), "z": expected}, 2e-6)
    alone = torch.empty_like(y)
    triton_forward.forward(alone, None, **inputs)
    assert torch.equal(alone, y)


def test_inference_gives_what_training_gives():
    inputs = {name: x.to(DEVICE) for name, x in make_inputs(9, 20, 30, torch.bfloat16).items()}
    with use_backend("triton"):
        trained = linear_silu(**{name: x.detach().requires_grad_() for name, x in inputs.items()})
        with torch.inference_mode():
            assert torch.equal(linear_silu(**inputs), trained)


@pytest.mark.parametrize("needed", ["x", "weight", "bias"])
def test_one_gradient_alone(needed):
    inputs = make_inputs(9, 20, 30, torch.bfloat16)
    others = {name: x.to(DEVICE) for name, x in inputs.items() if name != needed}
    whole = gpu_results("triton", linear_silu, inputs)
    part = gpu_results("triton", lambda **named: linear_silu(**named, **others), {needed: inputs[needed]})
    assert torch.equal(part[f"gradient of {needed}"], whole[f"gradient of {needed}"])
