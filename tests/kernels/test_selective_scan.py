from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import selective_scan, use_backend
from uqabench.kernels.backend import available, native_module

BACKENDS = [name for name, problem in available("selective_scan").items() if problem is None and name != "reference"]
RAGGED = [[], [0], [1], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
WIDTH, STATES = 5, 3


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(
    tokens: int, sequences: int, dtype: torch.dtype = torch.float32, width: int = WIDTH, states: int = STATES
) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {
        "u": torch.randn(tokens, width),
        "delta": torch.randn(tokens, width),
        "A": -torch.rand(width, states) - 0.1,
        "B": torch.randn(tokens, states),
        "C": torch.randn(tokens, states),
        "D": torch.randn(width),
        "z": torch.randn(tokens, width),
        "delta_bias": torch.randn(width),
        "initial_state": torch.randn(sequences, width, states),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def full(offsets):
    return lambda **inputs: selective_scan(**inputs, offsets=offsets, delta_softplus=True, return_state=True)


def bare(offsets):
    return lambda **inputs: selective_scan(**inputs, D=None, z=None, delta_bias=None, offsets=offsets)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, lengths):
    inputs = make_inputs(sum(lengths), len(lengths))
    matches_reference(full(offsets_of(lengths)), inputs, backend)
    inputs["delta"] = inputs["delta"].abs()
    required = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
    matches_reference(bare(offsets_of(lengths)), required, backend)


def test_matches_the_reference_in_bfloat16_with_float32_parameters(matches_reference):
    inputs = make_inputs(42, 3, torch.bfloat16)
    for name in ("A", "D", "delta_bias", "initial_state"):
        inputs[name] = inputs[name].float()
    matches_reference(full(offsets_of([1, 8, 33])), inputs, "eager")
    y, state = full(offsets_of([1, 8, 33]))(**inputs)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)


def test_gradients_agree_with_finite_differences():
    inputs = make_inputs(9, 4, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    call = full(offsets_of([0, 3, 5, 1]))
    assert torch.autograd.gradcheck(lambda *xs: call(**dict(zip(inputs, xs, strict=True))), leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_half_life_of_one_step(backend):
    """exp(ln 2 * -1) = 1/2: inputs of 1 / ln 2 add 1 each, and what they add halves at each later step."""
    half = torch.tensor(0.5).log().neg().item()
    u = torch.full((5, 1), 1 / half)
    ones = torch.ones(5, 1)
    with use_backend(backend):
        y, state = selective_scan(
            u, ones * half, -ones[:1], ones, ones, None, None, None, offsets_of([3, 2]), return_state=True
        )
    torch.testing.assert_close(y.squeeze(1), torch.tensor([1, 1.5, 1.75, 1, 1.5]))
    torch.testing.assert_close(state.flatten(), torch.tensor([1.75, 1.5]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_takes_rows_that_are_slices_of_a_projection(matches_reference, backend):
    inputs = make_inputs(24, 2)
    joined = torch.cat([inputs["delta"], inputs["B"], inputs["C"]], dim=1)

    def call(joined, **others):
        delta, B, C = joined.split([WIDTH, STATES, STATES], dim=1)
        return full(offsets_of([15, 9]))(delta=delta, B=B, C=C, **others)

    others = {name: x for name, x in inputs.items() if name not in ("delta", "B", "C")}
    matches_reference(call, {"joined": joined, **others}, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("width", "states", "lengths"), [(32, 4, [31, 32, 33, 0, 100]), (71, 5, [65, 1]), (1, 1, [40])]
)
def test_larger_shapes(matches_reference, backend, width, states, lengths):
    inputs = make_inputs(sum(lengths), len(lengths), width=width, states=states)
    matches_reference(full(offsets_of(lengths)), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_of_512(matches_reference, backend):
    matches_reference(full(offsets_of([512])), make_inputs(512, 1, width=2), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_the_state_alone(matches_reference, backend):
    def state(**inputs):
        return selective_scan(**inputs, offsets=offsets_of([3, 0, 37]), delta_softplus=True, return_state=True)[1]

    matches_reference(state, make_inputs(40, 3), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rate", [-1e4, -150.0, 30.0], ids=str)
def test_decays_far_from_one(matches_reference, backend, rate):
    """Steps that forget all, and a growing state (of one token, so that no sum loses the digits of others)."""
    lengths = [1, 1] if rate > 0 else [9, 33]
    inputs = make_inputs(sum(lengths), 2)
    inputs["A"] = torch.full_like(inputs["A"], rate)
    inputs["delta"] = 1 + inputs["delta"].abs() / 4
    matches_reference(full(offsets_of(lengths)), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "A", "initial_state", "z", "D", "delta_bias"])
def test_nan_stays_in_its_sequence_channel_and_future(backend, name):
    """Any bit pattern of NaN; outputs and the gradients of the inputs alike."""
    offsets, width, states = offsets_of([3, 40, 2]), 37, 3
    inputs = {n: x.requires_grad_() for n, x in make_inputs(45, 3, width=width, states=states).items()}
    spoilt = {n: x.detach().clone() for n, x in inputs.items()}
    by_token = name in ("u", "delta", "B", "C", "z")
    where = {"initial_state": (1, 4, 1), "A": (4, 1), "D": (4,), "delta_bias": (4,)}.get(
        name, (8, 1 if name in "BC" else 4)
    )
    spoilt[name].view(torch.int32)[where] = 0x7FFFFFFF
    leaves = {n: x.requires_grad_() for n, x in spoilt.items()}
    with use_backend(backend):
        y, state = full(offsets)(**leaves)
        expected_y, expected_state = full(offsets)(**inputs)
        gradient = torch.autograd.grad(y.sum() + state.sum(), leaves["u"])[0]
    bad = torch.zeros(45, width, dtype=torch.bool)
    tokens = (
        slice(8, 9 if name in "zC" else 43) if by_token else slice(3, 43) if name == "initial_state" else slice(None)
    )
    bad[tokens, slice(None) if name in "BC" else 4] = True
    assert torch.equal(y.isnan(), bad)
    assert torch.equal(y[~bad], expected_y[~bad])
    sequences = [1] if by_token or name == "initial_state" else [0, 1, 2]
    assert torch.equal(
        state[[b for b in range(3) if b not in sequences]], expected_state[[b for b in range(3) if b not in sequences]]
    )
    assert state[sequences].isnan().any() == (name not in "zCD")
    other = torch.tensor([b not in sequences for b in (0,) * 3 + (1,) * 40 + (2,) * 2])
    assert not gradient[other].isnan().any()


def test_native_is_the_same_to_the_bit_on_any_number_of_threads(threads_restored):
    inputs = {name: x.requires_grad_() for name, x in make_inputs(620, 4, width=70).items()}
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        y, state = full(offsets_of([300, 1, 290, 29]))(**inputs)
        results.append([y, state, *torch.autograd.grad(y.square().sum() + state.sum(), inputs.values())])
    for result in results[1:]:
        assert all(torch.equal(got, want) for got, want in zip(result, results[0], strict=True))


@pytest.fixture
def threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", native_module().instruction_sets())
def test_native_on_every_instruction_set(matches_reference, name):
    widest = native_module().instruction_set()
    native_module().set_instruction_set(name)
    try:
        for width in (5, 40):
            matches_reference(full(offsets_of([33, 0, 9])), make_inputs(42, 3, width=width), "native")
    finally:
        native_module().set_instruction_set(widest)


def test_native_operators_are_registered_correctly():
    inputs = {name: x.requires_grad_() for name, x in make_inputs(42, 3).items()}
    for present in (set(inputs), {"u", "delta", "A", "B", "C"}):
        *arguments, initial = [x if name in present else None for name, x in inputs.items()]
        arguments += [offsets_of([33, 0, 9]), True, initial, len(present) > 5, True, "native"]
        torch.library.opcheck(torch.ops.uqabench.selective_scan, arguments)
    *tensors, initial = [x.detach() for x in inputs.values()]
    arguments = (*tensors, offsets_of([33, 0, 9]), True, initial)
    results = torch.ops.uqabench.selective_scan(*arguments, True, True, "native")
    torch.library.opcheck(torch.ops.uqabench.selective_scan_backward, (*results, *arguments, "native"))


def test_native_compiles_into_one_graph_with_gradients():
    inputs = {name: x.requires_grad_() for name, x in make_inputs(42, 3).items()}
    results = []
    for call in (
        full(offsets_of([33, 0, 9])),
        torch.compile(full(offsets_of([33, 0, 9])), backend="aot_eager", fullgraph=True),
    ):
        y, state = call(**inputs)
        results.append([y, state, *torch.autograd.grad(y.square().sum() + state.sum(), inputs.values())])
    assert all(torch.equal(traced, eager) for eager, traced in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": np.zeros((3, 2), np.float32)}, "delta has the wrong shape"),
        ({"C": np.zeros((4, 2), np.float32)}, "C has the wrong shape"),
        ({"y": np.zeros((4, 4), np.float32)[:, :2]}, "y must be contiguous"),
        ({"kept": np.zeros((1, 3, 2), np.float32)}, "kept has the wrong shape"),
        ({"offsets": np.array([0, 5])}, "offsets must go from 0 to the number of tokens"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_the_module_checks_what_could_leave_memory(change, message):
    rows = {name: np.zeros((4, 2), np.float32) for name in ("y", "u", "delta")}
    rows |= {name: np.zeros((4, 3), np.float32) for name in ("B", "C")} | {"A": np.zeros((2, 3), np.float32)}
    absent = dict.fromkeys(("state", "kept", "ungated", "D", "z", "delta_bias", "initial_state"))
    arguments = rows | absent | {"offsets": np.array([0, 4]), "softplus": True, "threads": 1}
    native_module().selective_scan_forward(**arguments)
    with pytest.raises(ValueError, match=message):
        native_module().selective_scan_forward(**arguments | change)


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("u", torch.zeros(6), ValueError),
        ("u", [1.0], TypeError),
        ("delta", torch.zeros(5, WIDTH), ValueError),
        ("A", torch.zeros(WIDTH, STATES, dtype=torch.float64), TypeError),
        ("B", torch.zeros(6, STATES + 1), ValueError),
        ("C", torch.zeros(6, STATES, dtype=torch.bfloat16), TypeError),
        ("C", torch.zeros(STATES, 6).t(), ValueError),
        ("D", torch.zeros(WIDTH + 1), ValueError),
        ("z", torch.zeros(6, WIDTH, dtype=torch.int64), TypeError),
        ("delta_bias", torch.zeros(WIDTH, 1), ValueError),
        ("initial_state", torch.zeros(1, WIDTH, STATES), ValueError),
        ("offsets", torch.tensor([0, 4, 2, 6]), ValueError),
        ("offsets", torch.tensor([0, 4, 7]), ValueError),
        ("offsets", torch.tensor([0, 4, 6], dtype=torch.int32), TypeError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {**make_inputs(6, 2), "offsets": offsets_of([4, 2]), name: bad}
    with pytest.raises(error, match=rf"^{name}\b"):
        selective_scan(**arguments)
