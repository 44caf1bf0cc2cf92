"""The CUDA selective scan, its Python side included, with its kernels emulated on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uqabench.kernels.selective_scan import cuda, reference
from uqabench.kernels.selective_scan.operator import run as run_scan

from ..kernels.cases import case, offsets_of
from ..kernels.conftest import TOLERANCES, assert_close, assert_same_bits, outputs_and_gradients

SOURCE = Path(__file__).with_name("selective_scan.cpp")
FORWARD = "selective_scan_forward_cuda"
MIXED = [0, 1, 7, 8, 9, 0, 15, 16, 17, 33]
PIECES = [1, 64, 0, 65, 130]  # pieces have 64 tokens where there are few


@pytest.fixture
def emulated(
    build: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[int]]:
    """Makes the backend's kernels run emulated; called with "descending", lanes and blocks in the other order.

    It returns a list that each launch adds to: the bytes of shared memory that it asks for.
    """
    program = build(SOURCE)

    def use(order: str = "ascending") -> list[int]:
        from .conftest import run_emulated

        def run(function: str, sizes: Sequence[int], tensors: Sequence[Tensor | None], device: torch.device) -> None:
            what = "forward" if function == FORWARD else "backward"
            asked.extend(map(int, run_emulated(program, what, order, sizes, tensors, tmp_path).split()))

        asked: list[int] = []
        monkeypatch.setattr(cuda, "run_kernels", run)
        return asked

    use()
    return use


def scan(
    u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus=False, initial_state=None, return_state=False
):  # fmt: skip
    """The operator on backend "cuda", which does not ask where the tensors lie."""
    others = (offsets, delta_softplus, initial_state, return_state)
    return run_scan("cuda", u, delta, A, B, C, D, z, delta_bias, *others)


def make_inputs(
    lengths: Sequence[int], width: int, states: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = sum(lengths)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    joined = normal(tokens, 2 * width + 2 * states + 1).to(dtype)
    u, delta, B, C, _ = joined.split([width, width, states, states, 1], dim=1)
    return {
        "u": u, "delta": delta, "A": -torch.rand(width, states, generator=generator) - 0.1, "B": B, "C": C,
        "D": normal(width), "z": normal(tokens, width).to(dtype), "delta_bias": normal(width) - 2,
        "initial_state": normal(len(lengths), width, states),
    }  # fmt: skip


def compare(lengths: Sequence[int], inputs: dict[str, Tensor], **settings: bool) -> None:
    """Outputs and all gradients against the reference."""
    offsets = offsets_of(lengths)
    settings = {"delta_softplus": True, "return_state": True, **settings}
    absent = dict.fromkeys({"D", "z", "delta_bias"} - set(inputs))

    def call(run):
        return lambda **arrays: run(**arrays, **absent, offsets=offsets, **settings)

    doubles = {name: x.double() for name, x in inputs.items()}
    expected = outputs_and_gradients(call(reference.selective_scan), doubles)
    actual = outputs_and_gradients(call(scan), inputs)
    assert_close(actual, expected, TOLERANCES[inputs["u"].dtype])


@pytest.mark.parametrize(
    ("lengths", "width", "states"),
    [
        ([], 5, 3),
        ([0], 5, 3),
        (MIXED, 5, 3),
        ([9], 1, 1),
        ([9], 128, 2),  # a thread has no second channel
        (PIECES, 129, 1),  # one thread has two channels, the others one
        ([8, 0, 3], 256, 2),  # all have two
        ([9], 257, 16),  # three blocks with a channel a thread
        ([70, 9], 400, 1),  # two blocks of channels, a thread's two apart
        ([10, 3], 130, 17),  # too many states for two channels a thread
        ([18, 3], 2, 66),  # blocks of 64 channels
        ([9], 35, 130),  # and of 32
        ([5], 0, 3),
        ([5], 3, 0),
    ],
    ids=str,
)
def test_matches_the_reference(emulated, lengths, width, states):
    compare(lengths, make_inputs(lengths, width, states))


@pytest.mark.parametrize("states", range(1, 18))
def test_two_channels_a_thread_up_to_sixteen_states(emulated, states):
    assert cuda.thread_channels(states, 130) == (2 if states <= 16 else 1)
    compare([9, 2], make_inputs([9, 2], 130, states))


@pytest.mark.parametrize(("lengths", "width"), [(MIXED, 5), ([1, 65], 2), ([66, 3], 129)], ids=str)
def test_matches_the_reference_in_bfloat16(emulated, lengths, width):
    compare(lengths, make_inputs(lengths, width, 2, torch.bfloat16))


@pytest.mark.parametrize(("lengths", "width"), [([70, 0, 9, 16], 4), ([66, 3], 130)], ids=str)
@pytest.mark.parametrize("absent", [("D", "z", "delta_bias", "initial_state"), ("z",), ("initial_state",)], ids=str)
def test_without_options(emulated, absent, lengths, width):
    inputs = {name: x for name, x in make_inputs(lengths, width, 3).items() if name not in absent}
    positive = {name: inputs[name].abs() for name in ("delta", "delta_bias") if name in inputs}
    compare(lengths, inputs | positive, delta_softplus=False, return_state=False)


def test_every_input_in_bfloat16(emulated):
    inputs = {name: x.bfloat16() for name, x in make_inputs([20, 3], 5, 4).items()}
    compare([20, 3], inputs)


@pytest.mark.parametrize(
    ("width", "states", "threads", "each"), [(130, 3, 128, 2), (2, 3, 128, 1), (2, 65, 64, 1), (2, 130, 32, 1)]
)
def test_launches_ask_for_the_shared_memory_of_the_cost_model(emulated, width, states, threads, each):
    model = pytest.importorskip("bench.gpu_cases.selective_scan", reason="it imports triton's cases")
    assert cuda.block_threads(states) == threads
    assert cuda.thread_channels(states, width) == each
    asked = emulated()
    compare([66], make_inputs([66], width, states))
    forward, backward = model.forward_shared(states, each), model.backward_shared(states, each)
    ends, parameters = model.ends_shared(states), model.parameters_shared()
    assert asked == [ends, 0, forward, ends, 0, backward, 0, parameters]


def test_the_operator_s_example(emulated):
    example = case("selective_scan", (9, 0, 33))
    compare((9, 0, 33), dict(example.arrays))


@pytest.mark.parametrize("rate", [-1e4, 30.0], ids=str)
def test_decays_far_from_one(emulated, rate):
    lengths = [1, 1] if rate > 0 else [9, 130]
    inputs = make_inputs(lengths, 3, 2)
    inputs["A"] = torch.full_like(inputs["A"], rate)
    compare(lengths, inputs)


def test_a_state_of_zeros_stays_zero_where_decays_overflow(emulated):
    ones = torch.ones(256, 1)
    y = scan(0 * ones, ones, ones[:1], ones, ones, None, None, None, offsets_of([256]))
    assert torch.equal(y, 0 * ones)


def test_softplus_of_large_steps_and_of_steps_near_zero(emulated):
    delta = torch.tensor([-80.0, -12, -5, -3.5, -3.4, 0, 3, 30, 90])[:, None].requires_grad_()
    ones = torch.ones(9, 1)
    offsets = offsets_of([1] * 9)  # so y = softplus(delta)
    y = scan(ones, delta, -ones[:1], ones, ones, None, None, None, offsets, delta_softplus=True)
    expected = torch.nn.functional.softplus(delta.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=0)
    slope = torch.autograd.grad(y.sum(), delta)[0]
    torch.testing.assert_close(slope.double(), torch.sigmoid(delta.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["u", "B", "z", "A", "initial_state"])
def test_nan_stays_in_its_sequence_channel_and_future(emulated, name):
    lengths, width, states = [3, 70, 2], 5, 3
    inputs = make_inputs(lengths, width, states)
    at = {"initial_state": (1, 4, 1), "A": (4, 1)}.get(name, (68, 1 if name in "BC" else 4))
    spoilt = {n: x.clone() for n, x in inputs.items()}
    spoilt[name][at] = float("nan")

    def run(arrays):
        return scan(**arrays, offsets=offsets_of(lengths), delta_softplus=True, return_state=True)

    expected, (y, state) = run(inputs)[0], run({n: x.requires_grad_() for n, x in spoilt.items()})
    bad = torch.zeros(75, width, dtype=torch.bool)
    tokens = {"initial_state": slice(3, 73), "A": slice(None)}.get(name, slice(68, 69 if name in "zC" else 73))
    bad[tokens, slice(None) if name in "BC" else 4] = True
    assert torch.equal(y.isnan(), bad)
    assert torch.equal(y[~bad], expected[~bad])
    if name != "A":
        gradient = torch.autograd.grad(y.sum() + state.sum(), spoilt["u"])[0]
        assert not gradient[:3].isnan().any() and not gradient[73:].isnan().any()


@pytest.mark.parametrize("width", [34, 260])
def test_the_order_of_lanes_and_blocks_changes_no_bit(emulated, width):
    lengths = [70, 9, 0]
    inputs = make_inputs(lengths, width, 2)

    def call(**arrays):
        return scan(**arrays, offsets=offsets_of(lengths), delta_softplus=True, return_state=True)

    ascending = outputs_and_gradients(call, inputs)
    emulated("descending")
    assert_same_bits(outputs_and_gradients(call, inputs), ascending)


def test_too_many_states():
    x, rows = torch.ones(1, 1), torch.ones(1, 257)
    with pytest.raises(RuntimeError, match="takes 256 states, not 257"):
        scan(x, x, rows, rows, rows, None, None, None, offsets_of([1]))


def test_registered_operators_are_opaque(emulated):
    lengths = [33, 0, 9]
    inputs = tuple(x.contiguous() for x in make_inputs(lengths, 3, 2).values())
    names = list(make_inputs(lengths, 3, 2))
    tensors = [dict(zip(names, inputs, strict=True))[n] for n in
               ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]  # fmt: skip
    arguments = (*tensors, offsets_of(lengths), True, dict(zip(names, inputs, strict=True))["initial_state"])
    checks = ("test_schema", "test_faketensor")
    ops = torch.ops.uqabench
    torch.library.opcheck(ops.selective_scan, (*arguments, True, True, "cuda"), test_utils=checks)
    results = ops.selective_scan(*arguments, True, True, "cuda")
    torch.library.opcheck(ops.selective_scan_backward, (*results, *arguments, "cuda"), test_utils=checks)
