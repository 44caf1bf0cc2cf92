"""layer_norm and norm_gate."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import layer_norm, norm_gate

CASES = [("eager", torch.float64)] + [(b, d) for b in ("eager", "native") for d in (torch.float32, torch.bfloat16)]


def randn(*shapes, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(shape).to(dtype) for shape in shapes]


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 33])
@pytest.mark.parametrize("parameters", [(), ("weight",), ("bias",), ("weight", "bias")], ids=str)
def test_layer_norm_matches_the_reference(matches_reference, backend, rows, parameters, dtype):
    x, *values = randn((rows, 9), (9,), (9,), dtype=dtype)
    inputs = {"x": x} | dict(zip(parameters, values, strict=False))
    matches_reference(lambda **named: layer_norm(**named, eps=1e-5), inputs, backend)


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_norm_gate_matches_the_reference(matches_reference, backend, rows, dtype):
    x, gate = randn((rows, 9), (rows, 9), dtype=dtype)
    matches_reference(norm_gate, {"x": x, "gate": gate}, backend)


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("shape", [(0, 9), (33, 9), (3, 5, 16)], ids=str)
def test_norm_gate_with_dropout_matches_the_reference(matches_reference, backend, shape, dtype):
    x, gate = randn(shape, shape, dtype=dtype)
    seed = torch.tensor(-5)
    matches_reference(lambda x, gate: norm_gate(x, gate, dropout_p=0.3, seed=seed), {"x": x, "gate": gate}, backend)


def test_norm_gate_without_dropout_needs_no_seed():
    x, gate = randn((6, 9), (6, 9))
    assert torch.equal(norm_gate(x, gate, dropout_p=0.0, seed=torch.tensor(1)), norm_gate(x, gate))


def test_norm_gate_takes_strided_rows():
    """x and gate as slices of one projection."""
    joint = randn((6, 10))[0]
    gate, x = joint.chunk(2, dim=1)
    assert torch.equal(norm_gate(x, gate), norm_gate(x.contiguous(), gate.contiguous()))


def test_layer_norm_takes_any_leading_shape():
    x = randn((2, 3, 4))[0]
    torch.testing.assert_close(layer_norm(x), layer_norm(x.flatten(0, 1)).view(2, 3, 4))


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_eps_is_added_to_the_variance(eps):
    y = layer_norm(torch.tensor([[1.0, 3.0]]), eps=eps)
    torch.testing.assert_close(y, torch.tensor([[-1.0, 1.0]]) / (1 + eps) ** 0.5)


def test_gradcheck():
    x, weight, bias, gate = (t.requires_grad_() for t in randn((3, 4), (4,), (4,), (3, 4), dtype=torch.float64))
    assert torch.autograd.gradcheck(layer_norm, (x, weight, bias))
    assert torch.autograd.gradcheck(norm_gate, (x, gate))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: layer_norm([1.0]), TypeError, "x must be a tensor"),
        (lambda x: layer_norm(x, weight=x[0, :3]), ValueError, r"weight must have shape \(4,\)"),
        (lambda x: layer_norm(x, bias=x[0].double()), TypeError, "bias is float64, but x is float32"),
        (lambda x: layer_norm(x, eps=float("nan")), ValueError, "eps must be finite"),
        (lambda x: norm_gate(x, x[:2]), ValueError, "gate must have shape"),
        (lambda x: norm_gate(x, x.to("meta")), ValueError, "gate is on meta, but x is on cpu"),
        (lambda x: norm_gate(x, x, dropout_p=1.0), ValueError, "dropout_p must be from 0 to below 1, not 1.0"),
        (lambda x: norm_gate(x, x, dropout_p=-0.1), ValueError, "dropout_p must be from 0 to below 1, not -0.1"),
        (lambda x: norm_gate(x, x, dropout_p="half"), TypeError, "dropout_p must be a number"),
        (lambda x: norm_gate(x, x, dropout_p=0.1), ValueError, "seed must be given with dropout"),
        (lambda x: norm_gate(x, x, dropout_p=0.1, seed=3), TypeError, "seed must be a tensor"),
        (lambda x: norm_gate(x, x, dropout_p=0.1, seed=torch.zeros(1).long()), ValueError, "seed must have shape"),
        (lambda x: norm_gate(x, x, dropout_p=0.1, seed=torch.tensor(1.0)), TypeError, "seed must be int64"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(5, 4))
