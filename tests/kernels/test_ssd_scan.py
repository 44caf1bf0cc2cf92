from __future__ import annotations

import pytest
import torch

from uqabench.kernels import selective_scan, ssd_scan, use_backend
from uqabench.kernels.backend import available

BACKENDS = [name for name in ("eager", "native") if available("ssd_scan")[name] is None]  # gpu/ has the others
# The eager chunk is 32 tokens: just below, at and above it, and several of it.
RAGGED = [[], [0], [1], [7], [8, 9], [31, 32, 33], [0, 1, 7, 8, 9, 0, 33, 70]]
HEADS, WIDTH, GROUPS, STATES = 4, 3, 2, 5


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(
    tokens: int, sequences: int, dtype: torch.dtype = torch.float32, heads=HEADS, width=WIDTH, states=STATES
) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {
        "x": torch.randn(tokens, heads, width),
        "dt": torch.randn(tokens, heads),
        "A": -torch.rand(heads) - 0.1,
        "B": torch.randn(tokens, GROUPS, states),
        "C": torch.randn(tokens, GROUPS, states),
        "D": torch.randn(heads),
        "z": torch.randn(tokens, heads, width),
        "dt_bias": torch.randn(heads),
        "initial_state": torch.randn(sequences, heads, width, states),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def full(offsets):
    return lambda **inputs: ssd_scan(**inputs, offsets=offsets, return_state=True)


def bare(offsets):
    return lambda **inputs: ssd_scan(**inputs, D=None, z=None, dt_bias=None, offsets=offsets, dt_softplus=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, lengths):
    inputs = make_inputs(sum(lengths), len(lengths))
    matches_reference(full(offsets_of(lengths)), inputs, backend)
    inputs["dt"] = inputs["dt"].abs()
    required = {name: inputs[name] for name in ("x", "dt", "A", "B", "C")}
    matches_reference(bare(offsets_of(lengths)), required, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "width", "states"), [(10, 40, 33), (2, 1, 1), (4, 64, 16)])
def test_chunks_of_the_native_kernel_and_wide_heads(backend, heads, width, states):
    """Lengths around its 64 tokens, against plain torch in float64: the reference would take a minute."""
    offsets, inputs = offsets_of([63, 64, 65, 0, 200]), make_inputs(392, 5, torch.float32, heads, width, states)

    def outputs_and_gradients(dtype):
        leaves = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
        outputs = full(offsets)(**leaves)
        loss = sum((y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)).sum() for y in outputs)
        return *outputs, *torch.autograd.grad(loss, list(leaves.values()))

    with use_backend("eager"):
        expected = outputs_and_gradients(torch.float64)
    with use_backend(backend):
        actual = outputs_and_gradients(torch.float32)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


def test_matches_the_reference_in_bfloat16_with_float32_parameters(matches_reference):
    inputs = make_inputs(42, 3, torch.bfloat16)
    for name in ("A", "D", "dt_bias", "initial_state"):
        inputs[name] = inputs[name].float()
    matches_reference(full(offsets_of([1, 8, 33])), inputs, "eager")
    y, state = full(offsets_of([1, 8, 33]))(**inputs)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)


def test_gradients_agree_with_finite_differences():
    inputs = make_inputs(5, 3, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    call = full(offsets_of([0, 4, 1]))
    assert torch.autograd.gradcheck(lambda *xs: call(**dict(zip(inputs, xs, strict=True))), leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_is_the_selective_scan_with_one_decay_a_head(backend):
    """A head of width P equals P channels of S6 that share delta, and a row of A that repeats one number."""
    dtype, tolerance = (torch.float32, 1e-4) if backend == "native" else (torch.float64, 1e-10)
    inputs = make_inputs(40, 2, dtype)
    offsets = offsets_of([35, 5])
    for head in range(HEADS):
        group = head * GROUPS // HEADS
        expected = selective_scan(
            inputs["x"][:, head],
            inputs["dt"][:, head, None].expand(-1, WIDTH).contiguous(),
            inputs["A"][head].expand(WIDTH, STATES).contiguous(),
            inputs["B"][:, group].contiguous(),
            inputs["C"][:, group].contiguous(),
            inputs["D"][head].expand(WIDTH).contiguous(),
            inputs["z"][:, head],
            inputs["dt_bias"][head].expand(WIDTH).contiguous(),
            offsets,
            delta_softplus=True,
            initial_state=inputs["initial_state"][:, head].contiguous(),
        )
        with use_backend(backend):
            actual = full(offsets)(**inputs)[0][:, head]
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_strong_decay_over_a_chunk_does_not_overflow():
    inputs = make_inputs(64, 1)
    inputs["dt"] += 20  # exp(-dt A) over a chunk is far beyond float32, should it be formed for future tokens
    leaves = [x.requires_grad_() for x in inputs.values()]
    y, state = full(offsets_of([64]))(**inputs)
    with use_backend("reference"):
        torch.testing.assert_close((y, state), full(offsets_of([64]))(**inputs), rtol=1e-4, atol=1e-3)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum() + state.sum(), leaves))


def test_groups_must_divide_heads():
    inputs = make_inputs(6, 2) | {name: torch.zeros(6, 3, STATES) for name in ("B", "C")}
    with pytest.raises(ValueError, match="^B has 3 groups"):
        full(offsets_of([4, 2]))(**inputs)


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("x", torch.zeros(6, HEADS), ValueError),
        ("dt", torch.zeros(6, HEADS + 1), ValueError),
        ("A", torch.zeros(HEADS, 1), ValueError),
        ("B", torch.zeros(6, GROUPS, STATES, 1), ValueError),
        ("C", torch.zeros(6, GROUPS, STATES + 1), ValueError),
        ("C", torch.zeros(6, GROUPS, STATES, dtype=torch.float64), TypeError),
        ("D", torch.zeros(HEADS, dtype=torch.bfloat16), TypeError),
        ("z", torch.zeros(5, HEADS, WIDTH), ValueError),
        ("dt_bias", torch.zeros(1), ValueError),
        ("initial_state", torch.zeros(2, HEADS, STATES, WIDTH), ValueError),
        ("offsets", torch.tensor([1, 4, 6]), ValueError),
        ("offsets", [0, 4, 6], TypeError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {**make_inputs(6, 2), "offsets": offsets_of([4, 2]), name: bad}
    with pytest.raises(error, match=rf"^{name}\b"):
        ssd_scan(**arguments)
