"""What all native kernels share: instruction sets, threads, the module's own checks, registration with torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import causal_attention, hstu_attention, linear_rank, use_backend
from uqabench.kernels.backend import native_module

NATIVE = native_module()


@pytest.fixture(params=NATIVE.instruction_sets())
def instruction_set(request):
    widest = NATIVE.instruction_set()
    NATIVE.set_instruction_set(request.param)
    yield request.param
    NATIVE.set_instruction_set(widest)


def attention_inputs(dtype=torch.float32):
    torch.manual_seed(0)
    shapes = {"q": (76, 2, 5), "k": (76, 2, 5), "v": (76, 2, 19), "position_bias": (159,), "time_bias": (24,)}
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def attention(q, k, v, position_bias, time_bias):
    offsets, timestamps = torch.tensor([0, 40, 43, 43, 76]), torch.arange(76) ** 3
    bias = {"position_bias": position_bias, "time_bias": time_bias, "timestamps": timestamps}
    return hstu_attention(q, k, v, offsets, max_len=80, **bias)


def test_instruction_sets_are_reported_and_checked(instruction_set):
    assert NATIVE.instruction_set() == instruction_set
    assert NATIVE.instruction_sets()[0] == "baseline"
    with pytest.raises(ValueError, match="instruction set 'mmx' is unknown"):
        NATIVE.set_instruction_set("mmx")


def test_attention_on_every_instruction_set(matches_reference, instruction_set):
    matches_reference(attention, attention_inputs(), "native")


def test_causal_attention_on_every_instruction_set(matches_reference, instruction_set):
    offsets = torch.tensor([0, 40, 43, 43, 76])
    inputs = {name: x for name, x in attention_inputs().items() if name in ("q", "k", "v")}
    matches_reference(lambda q, k, v: causal_attention(q, k, v, offsets), inputs, "native")


def test_ranks_on_every_instruction_set(instruction_set):
    torch.manual_seed(0)
    hidden, weight = torch.randint(-3, 4, (37, 6)).float(), torch.randint(-3, 4, (501, 6)).float()
    target = torch.randint(0, 501, (37,))
    with use_backend("native"):
        ranks = linear_rank(hidden, weight, target)
    with use_backend("reference"):
        assert torch.equal(ranks, linear_rank(hidden, weight, target))
    with use_backend("native"):
        identical = linear_rank(torch.randn(3, 50), torch.randn(1, 50).repeat(99, 1), torch.tensor([0, 50, 98]))
    assert identical.tolist() == [0, 50, 98]


def causal(q, k, v, position_bias, time_bias):
    return causal_attention(q, k, v, torch.tensor([0, 40, 43, 43, 76]))


def outputs_and_gradients(call):
    inputs = {name: x.requires_grad_() for name, x in attention_inputs().items()}
    out = call(**inputs)
    return out, *torch.autograd.grad(out.square().sum(), tuple(inputs.values()), materialize_grads=True)


@pytest.mark.parametrize("call", [attention, causal])
@pytest.mark.parametrize("threads", [2, 5])
def test_attention_is_the_same_to_the_bit_on_any_number_of_threads(threads, call):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = outputs_and_gradients(call)
        torch.set_num_threads(threads)
        for got, want in zip(outputs_and_gradients(call), expected, strict=True):
            assert torch.equal(got, want)
    finally:
        torch.set_num_threads(before)


def test_operators_are_registered_correctly():
    """Schema, fake kernel, autograd and tracing, by torch's own checks."""
    inputs = {name: x.requires_grad_() for name, x in attention_inputs().items()}
    offsets, times = torch.tensor([0, 40, 43, 43, 76]), torch.arange(76)
    q, k, v, position, time = inputs.values()
    for is_native in (True, False):
        arguments = (q, k, v, offsets, position, time, times, 80, 1.0, is_native)
        torch.library.opcheck(torch.ops.uqabench.hstu_attention, arguments)
    torch.library.opcheck(torch.ops.uqabench.hstu_attention, (q, k, v, offsets, None, None, None, 80, 1.0, True))
    torch.library.opcheck(torch.ops.uqabench.causal_attention, (q, k, v, offsets, 0.5))
    ranks = (torch.randn(5, 4), torch.randn(9, 4), torch.tensor([0, 8, 3, 3, 1]))
    torch.library.opcheck(torch.ops.uqabench.linear_rank, ranks)


@pytest.mark.parametrize("call", [attention, causal])
def test_attention_compiles_into_one_graph_with_gradients(call):
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for eager, traced in zip(outputs_and_gradients(call), outputs_and_gradients(compiled), strict=True):
        assert torch.equal(eager, traced)


def hstu_arrays(**change):
    floats = {name: np.zeros((4, 1, 2), np.float32) for name in ("out", "q", "k", "v")}
    none = dict.fromkeys(("position_bias", "time_bias", "bucket_starts", "timestamps"))
    numbers = {"offsets": np.array([0, 4]), "max_len": 4, "scale": 1.0, "threads": 1}
    return floats | none | numbers | change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": np.zeros((4, 1, 2))}, TypeError, "incompatible function arguments"),
        ({"offsets": np.array([0, 4], np.int32)}, TypeError, "incompatible function arguments"),
        ({"k": np.zeros((3, 1, 2), np.float32)}, ValueError, "k has the wrong shape"),
        ({"out": np.zeros((4, 1, 3), np.float32)}, ValueError, "out has the wrong shape"),
        ({"out": np.zeros((8, 1, 2), np.float32)[::2]}, ValueError, "out must be contiguous"),
        ({"q": np.zeros((4, 1, 4), np.float32)[:, :, ::2]}, ValueError, "q must be contiguous in its last"),
        ({"offsets": np.array([0, 5])}, ValueError, "offsets must go from 0 to the number of tokens"),
        ({"offsets": np.array([0, 3, 1, 4])}, ValueError, "offsets must not fall"),
        ({"max_len": 3}, ValueError, "max_len is less than the longest sequence"),
        ({"max_len": 0}, ValueError, "max_len must lie in"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"position_bias": np.zeros(6, np.float32)}, ValueError, "position_bias has the wrong shape"),
        ({"time_bias": np.zeros(6, np.float32)}, ValueError, "time_bias needs timestamps"),
    ],
)
def test_the_module_checks_what_could_leave_memory(change, error, message):
    with pytest.raises(error, match=message):
        NATIVE.hstu_attention_forward(**hstu_arrays(**change))


def test_the_module_checks_gradients():
    x, logs, offsets = np.zeros((4, 1, 2), np.float32), np.zeros((4, 1), np.float32), np.array([0, 4])
    NATIVE.causal_attention_backward(x, x, x, x, x, logs, x, x, x, offsets, scale=1.0, threads=1)
    with pytest.raises(ValueError, match="log_sums has the wrong shape"):
        NATIVE.causal_attention_backward(x, x, x, x, x, logs[:3], x, x, x, offsets, scale=1.0, threads=1)
    with pytest.raises(ValueError, match="grad has the wrong shape"):
        NATIVE.causal_attention_backward(x, x, x, x[:3], x, logs, x, x, x, offsets, scale=1.0, threads=1)


def test_the_module_checks_targets():
    rank, rows = np.zeros(1, np.int64), np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\)"):
        NATIVE.linear_rank(rank, rows, rows, np.array([1]), threads=1)
