"""The GPU kernels of the causal convolution around their tile of 32 tokens, and what its example leaves out."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import causal_conv1d, use_backend

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, reference_results
from .conftest import DEVICE, assert_case_matches, gpu_backends, gpu_results

backends = pytest.mark.parametrize("backend", gpu_backends("causal_conv1d"))


def make_inputs(tokens: int, sequences: int, taps: int, channels: int, dtype=torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    shapes = {"x": (tokens, channels), "weight": (channels, taps), "bias": (channels,)}
    shapes["initial_state"] = (sequences, channels, taps - 1)
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def assert_matches(backend: str, inputs: dict[str, torch.Tensor], lengths, **settings) -> None:
    def call(**arrays):
        arrays = {"bias": None} | arrays
        return causal_conv1d(**arrays, offsets=offsets_of(lengths).to(arrays["x"].device), **settings)

    tolerance = TOLERANCES[inputs["x"].dtype]
    assert_close(gpu_results(backend, call, inputs), reference_results(call, inputs), tolerance)


@backends
@pytest.mark.parametrize("lengths", [(31, 32, 33), (2, 65, 3, 0, 1)], ids=str)
def test_lengths_around_a_tile(backend, lengths):
    assert_case_matches("causal_conv1d", backend, lengths)


@backends
@pytest.mark.parametrize(("taps", "channels"), [(1, 5), (2, 1), (5, 66)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_any_number_of_taps_and_channels(backend, taps, channels, dtype):
    lengths = (34, 2)
    inputs = make_inputs(sum(lengths), len(lengths), taps, channels, dtype)
    assert_matches(backend, inputs, lengths, activation="silu", return_state=True)


@backends
@pytest.mark.parametrize("absent", [("bias",), ("initial_state",), ("bias", "initial_state")], ids=str)
def test_without_what_may_be_absent(backend, absent):
    lengths = (3, 33)
    inputs = {name: x for name, x in make_inputs(36, 2, 4, 5).items() if name not in absent}
    assert_matches(backend, inputs, lengths)
    assert_matches(backend, inputs, lengths, return_state=True)


@backends
def test_nan_stays_in_its_sequence(backend):
    inputs = make_inputs(80, 3, 4, 5)
    inputs["x"][30], inputs["initial_state"][2] = float("nan"), float("inf")
    inputs = {name: x.to(DEVICE).requires_grad_() for name, x in inputs.items()}
    with use_backend(backend):
        y, state = causal_conv1d(**inputs, offsets=offsets_of([30, 40, 10]).to(DEVICE), return_state=True)
        gx, gs = torch.autograd.grad(y.sum() + state.sum(), (inputs["x"], inputs["initial_state"]))
    assert y[:30].isfinite().all() and y[34:70].isfinite().all() and y[73:].isfinite().all()
    assert y[30:34].isnan().all() and not y[70].isfinite().any()
    assert gx.isfinite().all() and gs.isfinite().all()


@backends
def test_the_same_bits_every_time(backend):
    inputs = make_inputs(70, 2, 4, 5)

    def call(**arrays):
        return causal_conv1d(**arrays, offsets=offsets_of([66, 4]).to(DEVICE), activation="silu")

    first, second = (gpu_results(backend, call, inputs) for _ in range(2))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


@backends
def test_is_registered_correctly(backend):
    x, weight, bias, state = (x.to(DEVICE).requires_grad_() for x in make_inputs(9, 3, 4, 5).values())
    arguments = (x, weight, bias, offsets_of([2, 0, 7]).to(DEVICE), True, state, True, backend)
    torch.library.opcheck(torch.ops.uqabench.causal_conv1d, arguments)
