"""The native kernels that go row by row: the norms, swiglu, and rope."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import layer_norm, norm_gate, rms_norm, rope, swiglu, use_backend
from uqabench.kernels.backend import choose, native_module

NATIVE = native_module()
OFFSETS = torch.tensor([0, 1, 1, 64, 576, 600])


def call_rope(x, other):
    """q and k of 4 heads and of 2, slices of joint projections."""
    q, k = (part[:, : part.shape[1] // 8 * 8] for part in (x, other))
    return rope(q.unflatten(1, (4, -1)), k[:, : k.shape[1] // 2].unflatten(1, (2, -1)), OFFSETS, 100.0)


CALLS = {
    "rms_norm": lambda x, other, weight, bias: rms_norm(x, weight),
    "rms_norm and sum": lambda x, other, weight, bias: rms_norm(x, weight, residual=other),
    "layer_norm": lambda x, other, weight, bias: layer_norm(x, weight, bias),
    "layer_norm without parameters": lambda x, other, weight, bias: layer_norm(x),
    "layer_norm, bias": lambda x, other, weight, bias: layer_norm(x, None, bias),
    "norm_gate": lambda x, other, weight, bias: norm_gate(x, other),
    "swiglu": lambda x, other, weight, bias: swiglu(x, other),
    "rope": lambda x, other, weight, bias: call_rope(x, other),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(params=NATIVE.instruction_sets())
def instruction_set(request):
    widest = NATIVE.instruction_set()
    NATIVE.set_instruction_set(request.param)
    yield request.param
    NATIVE.set_instruction_set(widest)


def make_inputs(width, rows=600):
    torch.manual_seed(width)
    shapes = {"x": (rows, width), "other": (rows, width), "weight": (width,), "bias": (width,)}
    return {name: torch.randn(shape) + 0.5 for name, shape in shapes.items()}


def outputs_and_gradients(call, inputs):
    leaves = [x.detach().requires_grad_() for x in inputs.values()]
    out = call(*leaves)
    outputs = out if isinstance(out, tuple) else (out,)
    loss = sum((y.square() * (1 + i)).sum() for i, y in enumerate(outputs))
    return *outputs, *torch.autograd.grad(loss, leaves, materialize_grads=True)


def test_native_is_the_default_for_fp32_and_bf16():
    for operator in ("rms_norm", "layer_norm", "norm_gate", "swiglu", "rope"):
        assert choose(operator, "cpu", torch.float32) == "native"
        assert choose(operator, "cpu", torch.bfloat16) == "native"
        assert choose(operator, "cpu", torch.float16) == "eager"


@every_call
@pytest.mark.parametrize("width", [16, 63, 264])
def test_matches_the_reference_on_every_instruction_set(matches_reference, instruction_set, call, width):
    matches_reference(call, make_inputs(width), "native")


@pytest.mark.parametrize("width", [1, 2, 31, 33])
def test_narrow_rows(matches_reference, instruction_set, width):
    inputs = make_inputs(width, rows=9)
    matches_reference(lambda x, weight, other, bias: rms_norm(x, weight, residual=other), inputs, "native")
    matches_reference(lambda x, other, weight, bias: layer_norm(x, weight, bias, 0.1), inputs, "native")
    matches_reference(CALLS["swiglu"], inputs, "native")


@every_call
@pytest.mark.parametrize("threads", [2, 5])
def test_the_same_to_the_bit_on_any_number_of_threads(threads, call):
    before, inputs = torch.get_num_threads(), make_inputs(264)
    try:
        torch.set_num_threads(1)
        expected = outputs_and_gradients(call, inputs)
        torch.set_num_threads(threads)
        for got, want in zip(outputs_and_gradients(call, inputs), expected, strict=True):
            assert torch.equal(got, want)
    finally:
        torch.set_num_threads(before)


@every_call
def test_strided_rows_are_the_same_to_the_bit(call):
    inputs = make_inputs(24)
    joint = torch.cat([inputs["x"], inputs["other"]], 1)
    x, other = joint.split(24, 1)
    strided = {**inputs, "x": x, "other": other}
    for got, want in zip(outputs_and_gradients(call, strided), outputs_and_gradients(call, inputs), strict=True):
        assert torch.equal(got, want)


@every_call
def test_gradients_that_are_views(call):
    """The gradient of a sum has no strides at all, that of a transpose the wrong ones."""
    inputs = make_inputs(24)

    def gradients(of):
        leaves = [x.detach().requires_grad_() for x in inputs.values()]
        out = call(*leaves)
        first = out[0] if isinstance(out, tuple) else out
        return torch.autograd.grad(of(first), leaves, materialize_grads=True)

    weights = torch.arange(24 * 600.0) / 1e4
    ones = gradients(lambda y: (y * 1.0).sum())
    for got, want in zip(gradients(lambda y: y.sum()), ones, strict=True):
        assert torch.equal(got, want)
    straight = gradients(lambda y: (y.flatten(1) * weights.view(24, 600).T.contiguous()).sum())
    turned = gradients(lambda y: (y.flatten(1).T.contiguous() * weights.view(24, 600)).sum())
    for got, want in zip(turned, straight, strict=True):
        assert torch.equal(got, want)


def test_any_leading_shape(matches_reference):
    inputs = {name: x.view(*([20, 30] if x.ndim == 2 else []), 24) for name, x in make_inputs(24).items()}
    inputs["x"] = inputs["x"].transpose(0, 1).contiguous().transpose(0, 1)  # rows at no single stride
    for name in set(CALLS) - {"rope"}:
        matches_reference(CALLS[name], inputs, "native")


@every_call
def test_one_graph_with_gradients(call):
    inputs = make_inputs(24)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for eager, traced in zip(outputs_and_gradients(call, inputs), outputs_and_gradients(compiled, inputs), strict=True):
        assert torch.equal(eager, traced)


@every_call
def test_nan_stays_in_its_row(call):
    inputs = make_inputs(24)
    inputs["x"][7, 5] = float("nan")
    inputs["x"][9, 5] = float("inf")
    leaf = inputs["x"].requires_grad_()
    out = call(**inputs)
    (gradient,) = torch.autograd.grad((out[0] if isinstance(out, tuple) else out).sum(), leaf)
    for y in (out[0] if isinstance(out, tuple) else out, gradient):
        is_finite = y.flatten(1).isfinite().all(1)
        assert is_finite[[i for i in range(600) if i not in (7, 9)]].all()


def test_either_output_of_rms_norm_may_be_left_unused():
    x, residual, weight, _ = make_inputs(24).values()
    leaves = [t.requires_grad_() for t in (x, residual, weight)]
    y, total = rms_norm(x, weight, residual=residual)
    dx, dresidual, dweight = torch.autograd.grad(total.sum(), leaves, allow_unused=True, retain_graph=True)
    assert torch.equal(dx, torch.ones_like(x)) and torch.equal(dresidual, dx) and dweight is None
    with_sum = torch.autograd.grad(rms_norm(x + residual, weight).sum(), leaves)
    for got, want in zip(torch.autograd.grad(y.sum(), leaves), with_sum, strict=True):
        torch.testing.assert_close(got, want)


def test_parameters_that_are_frozen_get_no_gradient():
    x, _, weight, bias = make_inputs(24).values()
    x.requires_grad_()
    for y in (layer_norm(x, weight, bias), rms_norm(x, weight)):
        y.sum().backward()
    assert weight.grad is None and bias.grad is None and x.grad.isfinite().all()


def test_statistics_are_those_of_the_deviations():
    """Far from 0, E[x^2] - mean^2 would lose the variance."""
    x = 1e4 + torch.arange(64.0).view(1, 64) / 64
    with use_backend("reference"):
        expected = layer_norm(x)
    torch.testing.assert_close(layer_norm(x), expected, rtol=1e-2, atol=1e-2)


def test_swiglu_of_large_gates():
    gate = torch.tensor([[-1e4, -200.0, -100.0, 0.0, 100.0, 1e4]], requires_grad=True)
    y = swiglu(gate, torch.ones_like(gate))
    (gradient,) = torch.autograd.grad(y.sum(), gate)
    torch.testing.assert_close(y, torch.tensor([[0.0, 0.0, 0.0, 0.0, 100.0, 1e4]]))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, 0.0, 0.5, 1.0, 1.0]]), atol=1e-5, rtol=1e-5)


def test_registration():
    """Schema, fake kernel, autograd and tracing, by torch's own checks."""
    x, other, weight, bias = (t.requires_grad_() for t in make_inputs(8, rows=5).values())
    q, k, offsets = (
        x.detach().view(5, 2, 4).requires_grad_(),
        other.detach().view(5, 2, 4)[:, :1],
        torch.tensor([0, 3, 5]),
    )
    ops = torch.ops.uqabench
    for op, arguments in (
        (ops.rms_norm, (x, weight, 1e-5, torch.float32, "native")),
        (ops.rms_norm_sum, (x, weight, 1e-5, other, "native")),
        (ops.layer_norm, (x, weight, bias, 1e-5, "native")),
        (ops.layer_norm, (x, None, None, 1e-5, "native")),
        (ops.norm_gate, (x, other, 1e-5, 0.0, None, "native")),
        (ops.norm_gate, (x, other, 1e-5, 0.25, torch.tensor(7), "native")),
        (ops.swiglu, (x, other, "native")),
        (ops.rope, (q, k, offsets, 100.0, False, None, None, "native")),
    ):
        torch.library.opcheck(op, arguments)


def rows(*shape):
    return np.zeros(shape, np.float32)


def norm_arrays(**change):
    names = ("sum", "residual", "weight", "bias", "gate")
    return (
        {"y": rows(3, 4), "statistics": rows(2, 3), "x": rows(3, 4), "eps": 1.0, "threads": 1}
        | dict.fromkeys(names)
        | change
    )


def gradient_arrays(**change):
    names = ("dgate", "dweight", "dbias", "grad_sum", "weight", "gate")
    arrays = {"dx": rows(3, 4), "grad": rows(3, 4), "statistics": rows(1, 3), "x": rows(3, 4), "threads": 1}
    return arrays | dict.fromkeys(names) | change


def rope_arrays(**change):
    arrays = {name: rows(3, 2, 4) for name in ("q_out", "k_out", "q", "k")}
    return arrays | {"table": rows(2, 4), "offsets": np.array([0, 2, 3]), "is_inverse": False, "threads": 1} | change


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("norm_forward", norm_arrays(y=rows(3, 5)), "y has the wrong shape"),
        ("norm_forward", norm_arrays(y=rows(6, 4)[::2]), "y must be contiguous"),
        ("norm_forward", norm_arrays(x=rows(3)), "x must have two dimensions"),
        ("norm_forward", norm_arrays(statistics=rows(3, 3)), "statistics must have one row or two"),
        ("norm_forward", norm_arrays(statistics=rows(2, 4)), "statistics has the wrong shape"),
        ("norm_forward", norm_arrays(weight=rows(3)), "weight has the wrong shape"),
        ("norm_forward", norm_arrays(bias=rows(3)), "bias has the wrong shape"),
        ("norm_forward", norm_arrays(gate=rows(3, 3)), "gate has the wrong shape"),
        ("norm_forward", norm_arrays(residual=rows(3, 4)), "sum and residual need each other"),
        ("norm_forward", norm_arrays(weight=rows(4), gate=rows(3, 4)), "weight and gate exclude each other"),
        ("norm_backward", gradient_arrays(grad=rows(2, 4)), "grad has the wrong shape"),
        ("norm_backward", gradient_arrays(grad_sum=rows(2, 4)), "grad_sum has the wrong shape"),
        ("norm_backward", gradient_arrays(dgate=rows(3, 4)), "dgate needs a gate"),
        ("norm_backward", gradient_arrays(dweight=rows(4)), "dweight needs a weight"),
        ("norm_backward", gradient_arrays(dbias=rows(3)), "dbias has the wrong shape"),
        ("rope", rope_arrays(table=rows(1, 4)), "table has fewer rows"),
        ("rope", rope_arrays(k=rows(2, 2, 4)), "k has the wrong shape"),
        ("rope", rope_arrays(offsets=np.array([0, 4])), "offsets must go from 0"),
        ("rope", rope_arrays(q=rows(3, 2, 3)), "q must have an even last dimension"),
    ],
)
def test_the_module_checks_what_could_leave_memory(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(NATIVE, function)(**arguments)


def test_the_module_checks_swiglu():
    x = rows(3, 4)
    for change, message in (
        ({"up": rows(2, 4)}, "up has"),
        ({"y": rows(3, 3)}, "y has"),
        ({"gate": rows(3)}, "gate must"),
    ):
        with pytest.raises(ValueError, match=message):
            NATIVE.swiglu_forward(**({"y": x, "gate": x, "up": x, "threads": 1} | change))
