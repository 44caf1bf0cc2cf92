"""The native GRU: instruction sets, threads, strided arguments, registration with torch, the module's own checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import gru, use_backend
from uqabench.kernels.backend import native_module

NATIVE = native_module()
LENGTHS = [3, 0, 9, 1, 5, 5, 0, 2, 7, 4, 4, 6, 1, 8, 3, 2, 9, 5]  # from 1 to 16 sequences run at a step
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)


@pytest.fixture(params=NATIVE.instruction_sets())
def instruction_set(request):
    widest = NATIVE.instruction_set()
    NATIVE.set_instruction_set(request.param)
    yield request.param
    NATIVE.set_instruction_set(widest)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def make_inputs(hidden: int, width: int = 6) -> dict[str, torch.Tensor]:
    torch.manual_seed(hidden)
    inputs = {"x": torch.randn(sum(LENGTHS), width), "h0": torch.randn(1, len(LENGTHS), hidden)}
    shapes = {"w_ih": (3 * hidden, width), "w_hh": (3 * hidden, hidden), "b_ih": (3 * hidden,), "b_hh": (3 * hidden,)}
    return inputs | {name: torch.randn(shape) / hidden**0.5 for name, shape in shapes.items()}


def layer(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None):
    return gru(x, [(w_ih, w_hh, b_ih, b_hh)], OFFSETS, h0=h0, return_state=True)


def outputs_and_gradients(call, inputs):
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    with use_backend("native"):
        out, states = call(**leaves)
    return out, states, *torch.autograd.grad(out.square().sum() + states.sum(), list(leaves.values()))


# Widths below, at and above one vector, and one or two past the three that a register tile takes.
@pytest.mark.parametrize("hidden", [1, 4, 13, 24, 40, 101])
def test_every_instruction_set(matches_reference, instruction_set, hidden):
    matches_reference(layer, make_inputs(hidden), "native")


def recurrence(hidden: int, offsets: torch.Tensor) -> list[torch.Tensor]:
    """All that the recurrence computes itself: its outputs, and the gradients of its inputs and h0."""
    torch.manual_seed(hidden)
    tokens, sequences = int(offsets[-1]), len(offsets) - 1
    inputs, w_hh, h0 = (torch.randn(n, m) for n, m in ((tokens, 3 * hidden), (3 * hidden, hidden), (sequences, hidden)))
    out, state, *kept = torch.ops.uqabench.gru_recurrence(
        inputs, w_hh / hidden**0.5, None, offsets, h0, True, True, "native"
    )
    backward = torch.ops.uqabench.gru_recurrence_backward
    gradients = backward(out, state, out, *kept, w_hh, offsets, h0, False, False, True, "native")
    return [out, state, *kept, *gradients]


# Each has work enough for several threads.
@pytest.mark.parametrize(("hidden", "offsets"), [(64, OFFSETS), (160, OFFSETS), (7, torch.arange(2000) * 2)])
def test_same_bits_on_any_number_of_threads(set_threads, hidden, offsets):
    set_threads(1)
    expected = recurrence(hidden, offsets)
    for threads in (2, 5):
        set_threads(threads)
        assert all(torch.equal(got, want) for got, want in zip(recurrence(hidden, offsets), expected, strict=True))


def test_more_threads_than_tasks(set_threads):
    offsets = torch.tensor([0, 3])  # one sequence: as many tasks as vectors of hidden units
    set_threads(1)
    expected = recurrence(512, offsets)
    set_threads(70)
    assert all(torch.equal(got, want) for got, want in zip(recurrence(512, offsets), expected, strict=True))


def test_strided_arguments():
    inputs = make_inputs(13)

    def strided(x):
        wide = torch.cat([x, x + 1], dim=-1)
        return wide[..., : x.shape[-1]]

    def call(**leaves):
        return layer(**{name: strided(x) for name, x in leaves.items()})

    for got, want in zip(outputs_and_gradients(call, inputs), outputs_and_gradients(layer, inputs), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("part", [0, 1])
def test_gradient_of_one_output_alone(part):
    inputs = make_inputs(13)
    gradients = []
    for backend in ("native", "eager"):
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        with use_backend(backend):
            gradients.append(torch.autograd.grad(layer(**leaves)[part].sum(), list(leaves.values())))
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", [{"x"}, {"w_hh"}, {"b_hh"}, {"h0"}], ids=str)
def test_gradients_of_some_inputs_alone(trained):
    inputs = make_inputs(13)
    everything = dict(zip(inputs, outputs_and_gradients(layer, inputs)[2:], strict=True))
    leaves = {name: x.clone().requires_grad_(name in trained) for name, x in inputs.items()}
    with use_backend("native"):
        out, states = layer(**leaves)
    (out.square().sum() + states.sum()).backward()
    assert {name for name, x in leaves.items() if x.grad is not None} == trained
    for name in trained:
        torch.testing.assert_close(leaves[name].grad, everything[name])


@pytest.mark.parametrize("without", [set(), {"b_ih", "b_hh", "h0"}], ids=str)
def test_compiles_into_one_graph_with_gradients(without):
    inputs = {name: x for name, x in make_inputs(13).items() if name not in without}
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for got, want in zip(outputs_and_gradients(compiled, inputs), outputs_and_gradients(layer, inputs), strict=True):
        assert torch.equal(got, want)


def test_registered_correctly():
    inputs = make_inputs(5)
    x, w, b, h = torch.randn(sum(LENGTHS), 15), inputs["w_hh"], inputs["b_hh"], inputs["h0"][0]
    torch.library.opcheck(torch.ops.uqabench.gru_recurrence, (x, w, None, OFFSETS, None, True, False, "native"))
    out, _, *kept = torch.ops.uqabench.gru_recurrence(x, w, b, OFFSETS, h, True, True, "native")
    grads = torch.randn_like(out), torch.randn_like(h)
    for needs in ([True, True, True], [False, False, False]):
        arguments = (*grads, out, *kept, w, OFFSETS, h, *needs, "native")
        torch.library.opcheck(torch.ops.uqabench.gru_recurrence_backward, arguments)
    for v in (x, w, b, h):
        v.requires_grad_()
    for bias, initial in ((b, h), (None, None)):
        torch.library.opcheck(torch.ops.uqabench.gru_recurrence, (x, w, bias, OFFSETS, initial, True, True, "native"))
    with pytest.raises(RuntimeError, match="gru_recurrence has gradients only if"):
        torch.ops.uqabench.gru_recurrence(x, w, b, OFFSETS, h, True, False, "native")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def forward_arrays():
    layer = {"w_hh": zeros(6, 2), "b_hh": zeros(6), "h0": zeros(1, 2), "offsets": np.array([0, 4]), "threads": 1}
    results = {"out": zeros(4, 2), "state": zeros(1, 2), "gates": zeros(4, 6), "recurrent_new": zeros(4, 2)}
    return layer | results | {"inputs": zeros(4, 6)}


def backward_arrays():
    arrays = forward_arrays() | {"grad_out": zeros(4, 2), "d_inputs": zeros(4, 6), "d_recurrent": zeros(4, 6)}
    for name in ("inputs", "b_hh", "state"):
        del arrays[name]
    return arrays | {"previous": zeros(4, 2), "d_state": zeros(1, 2), "to_h0": True}


@pytest.mark.parametrize("function", ["gru_forward", "gru_backward"])
def test_the_module_checks_shapes(function):
    good = forward_arrays() if function == "gru_forward" else backward_arrays()
    call = getattr(NATIVE, function)
    call(**good)
    for name, x in good.items():
        if isinstance(x, np.ndarray):
            with pytest.raises(ValueError, match="has the wrong shape|offsets must go from"):
                call(**good | {name: x[:-1]})
    with pytest.raises(ValueError, match="threads must be at least 1"):
        call(**good | {"threads": 0})
    with pytest.raises(ValueError, match="out must be contiguous"):
        call(**good | {"out": zeros(8, 2)[::2]})
    with pytest.raises(TypeError, match="incompatible function arguments"):
        call(**good | {"w_hh": np.zeros((6, 2))})


def test_the_module_wants_both_or_none_of_what_backward_needs():
    with pytest.raises(ValueError, match="gates and recurrent_new go together"):
        NATIVE.gru_forward(**forward_arrays() | {"gates": None})
