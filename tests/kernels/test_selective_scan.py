from __future__ import annotations

import pytest
import torch

from uqabench.kernels import selective_scan, use_backend
from uqabench.kernels.backend import available

BACKENDS = [name for name, problem in available("selective_scan").items() if problem is None and name != "reference"]
RAGGED = [[], [0], [1], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
WIDTH, STATES = 5, 3


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(tokens: int, sequences: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {
        "u": torch.randn(tokens, WIDTH),
        "delta": torch.randn(tokens, WIDTH),
        "A": -torch.rand(WIDTH, STATES) - 0.1,
        "B": torch.randn(tokens, STATES),
        "C": torch.randn(tokens, STATES),
        "D": torch.randn(WIDTH),
        "z": torch.randn(tokens, WIDTH),
        "delta_bias": torch.randn(WIDTH),
        "initial_state": torch.randn(sequences, WIDTH, STATES),
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


def test_takes_rows_that_are_slices_of_a_projection(matches_reference):
    inputs = make_inputs(24, 2)
    joined = torch.cat([inputs["delta"], inputs["B"], inputs["C"]], dim=1)

    def call(joined, **others):
        delta, B, C = joined.split([WIDTH, STATES, STATES], dim=1)
        return full(offsets_of([15, 9]))(delta=delta, B=B, C=C, **others)

    others = {name: x for name, x in inputs.items() if name not in ("delta", "B", "C")}
    matches_reference(call, {"joined": joined, **others}, "eager")


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
