"""The GPU kernels of the Mamba-2 scan around their chunk of 64 tokens, and what its example leaves out."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import ssd_scan, use_backend

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, outputs_and_gradients, reference_results
from .conftest import DEVICE, gpu_backends, gpu_results

backends = pytest.mark.parametrize("backend", gpu_backends("ssd_scan"))
FULL = {"return_state": True}
BARE = {"D": None, "z": None, "dt_bias": None, "dt_softplus": False}


def make_inputs(
    tokens: int, sequences: int, heads=2, groups=1, width=3, states=5, dtype=torch.float32
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "x": normal(tokens, heads, width),
        "dt": normal(tokens, heads),
        "A": -normal(heads).float().abs() - 0.1,
        "B": normal(tokens, groups, states),
        "C": normal(tokens, groups, states),
        "D": normal(heads).float(),
        "z": normal(tokens, heads, width),
        "dt_bias": normal(heads).float(),
        "initial_state": normal(sequences, heads, width, states).float(),
    }


def calling(lengths, settings=FULL):
    def call(**arrays):
        return ssd_scan(**arrays, **settings, offsets=offsets_of(lengths).to(arrays["x"].device))

    return call


def assert_matches(backend: str, inputs: dict[str, torch.Tensor], lengths, settings=FULL, plain: bool = False) -> None:
    """Against the reference or, `plain`, against plain torch in float64, which is faster over many tokens."""
    call = calling(lengths, settings)
    if plain:
        with use_backend("eager"):
            expected = outputs_and_gradients(call, {name: x.double() for name, x in inputs.items()})
    else:
        expected = reference_results(call, inputs)
    assert_close(gpu_results(backend, call, inputs), expected, TOLERANCES[inputs["x"].dtype])


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lengths_around_a_chunk(backend, dtype):
    lengths = (63, 0, 65, 64)
    assert_matches(backend, make_inputs(sum(lengths), len(lengths), heads=1, dtype=dtype), lengths, plain=True)


@backends
def test_a_state_carried_over_several_chunks(backend):
    assert_matches(backend, make_inputs(200, 1, heads=1), (200,), plain=True)


@backends
@pytest.mark.parametrize(
    ("heads", "groups", "width", "states"), [(6, 2, 1, 1), (5, 1, 17, 20), (1, 1, 65, 3), (1, 1, 2, 130)]
)
def test_any_number_of_heads_and_widths(backend, heads, groups, width, states):
    assert_matches(backend, make_inputs(3, 1, heads, groups, width, states), (3,))


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_what_may_be_absent(backend, dtype):
    inputs = {name: x for name, x in make_inputs(7, 2, dtype=dtype).items() if name in ("x", "dt", "A", "B", "C")}
    inputs["dt"] = inputs["dt"].abs()
    assert_matches(backend, inputs, (3, 4), BARE)


@backends
def test_more_states_than_the_kernels_hold_are_left_to_plain_torch(backend):
    assert_matches(backend, make_inputs(3, 1, heads=1, states=257), (3,))


@backends
def test_small_steps_keep_their_digits(backend):
    inputs = make_inputs(4, 1)
    inputs["dt"] = torch.tensor([[-14.0, -17.0], [-20.0, -30.0], [0.0, 10.0], [25.0, 40.0]])
    inputs["dt_bias"] = torch.zeros(2)
    names = ("D", "z", "initial_state")
    call = calling((4,), dict.fromkeys(names) | {"return_state": True})
    inputs = {name: x for name, x in inputs.items() if name not in names}
    with use_backend("reference"):
        expected = call(**{name: x.double() for name, x in inputs.items()})[0]
    with use_backend(backend):
        actual = call(**{name: x.to(DEVICE) for name, x in inputs.items()})[0].cpu()
    torch.testing.assert_close(actual.double()[:2], expected[:2], rtol=1e-5, atol=0.0)


@backends
def test_strong_decay_over_a_chunk_does_not_overflow(backend):
    inputs = make_inputs(64, 1)
    inputs["dt"] += 20  # exp(-dt A) over a chunk is far beyond float32, should it be formed for future tokens
    results = gpu_results(backend, calling((64,)), inputs)
    assert all(x.isfinite().all() for x in results.values())


@backends
def test_the_same_bits_every_time(backend):
    inputs = make_inputs(70, 1, heads=1)
    first, second = (gpu_results(backend, calling((70,)), inputs) for _ in range(2))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


@pytest.mark.slow
@backends
def test_is_registered_correctly(backend):
    x, dt, A, B, C, D, z, bias, state = (v.to(DEVICE).requires_grad_() for v in make_inputs(9, 3).values())
    arguments = (x, dt, A, B, C, D, z, bias, offsets_of([2, 0, 7]).to(DEVICE), True, state, True, True, backend)
    torch.library.opcheck(torch.ops.uqabench.ssd_scan, arguments)
