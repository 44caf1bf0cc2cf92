from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv1d, silu

from uqabench.kernels import causal_conv1d, use_backend
from uqabench.kernels.backend import available
from uqabench.kernels.causal_conv1d import eager

BACKENDS = [name for name, problem in available("causal_conv1d").items() if problem is None and name != "reference"]
RAGGED = [[], [0], [1], [2, 3, 4], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
CHANNELS = 5


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(tokens: int, sequences: int, taps: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {
        "x": torch.randn(tokens, CHANNELS),
        "weight": torch.randn(CHANNELS, taps),
        "bias": torch.randn(CHANNELS),
        "initial_state": torch.randn(sequences, CHANNELS, taps - 1),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def full(offsets):
    return lambda **inputs: causal_conv1d(**inputs, offsets=offsets, activation="silu", return_state=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, lengths, taps):
    inputs = make_inputs(sum(lengths), len(lengths), taps)
    offsets = offsets_of(lengths)
    matches_reference(full(offsets), inputs, backend)
    required = {name: inputs[name] for name in ("x", "weight")}
    matches_reference(lambda **xs: causal_conv1d(**xs, bias=None, offsets=offsets), required, backend)


def test_matches_the_reference_across_its_blocks(matches_reference, monkeypatch):
    monkeypatch.setattr(eager, "_BLOCK_ELEMENTS", 6 * CHANNELS)
    matches_reference(full(offsets_of([1, 8, 33])), make_inputs(42, 3, 4), "eager")


def test_matches_the_reference_in_bfloat16(matches_reference):
    matches_reference(full(offsets_of([1, 8, 33])), make_inputs(42, 3, 4, torch.bfloat16), "eager")


def test_gradients_agree_with_finite_differences():
    inputs = make_inputs(9, 4, 3, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    call = full(offsets_of([0, 3, 5, 1]))
    assert torch.autograd.gradcheck(lambda *xs: call(**dict(zip(inputs, xs, strict=True))), leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_is_torchs_padded_convolution_of_each_sequence(backend):
    inputs = make_inputs(12, 2, 4)
    weight, bias = inputs["weight"], inputs["bias"]
    expected = torch.cat(
        [silu(conv1d(x.t(), weight[:, None], bias, padding=3, groups=CHANNELS)[:, : len(x)]).t()
         for x in inputs["x"].split([10, 2])]
    )  # fmt: skip
    with use_backend(backend):
        y = causal_conv1d(inputs["x"], weight, bias, offsets_of([10, 2]), activation="silu")
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("x", torch.zeros(6, CHANNELS, 1), ValueError),
        ("weight", torch.zeros(CHANNELS - 1, 4), ValueError),
        ("weight", torch.zeros(CHANNELS, 0), ValueError),
        ("weight", torch.zeros(CHANNELS, 4, dtype=torch.bfloat16), TypeError),
        ("bias", torch.zeros(CHANNELS, 1), ValueError),
        ("activation", "relu", ValueError),
        ("initial_state", torch.zeros(2, CHANNELS, 4), ValueError),
        ("offsets", torch.tensor([0, 6, 4]), ValueError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {**make_inputs(6, 2, 4), "offsets": offsets_of([4, 2]), name: bad}
    with pytest.raises(error, match=rf"^{name}\b"):
        causal_conv1d(**arguments)
