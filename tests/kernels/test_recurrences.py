"""What every operator that carries a state along a sequence must hold, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uqabench.kernels import causal_conv1d, gru, selective_scan, ssd_scan
from uqabench.kernels.backend import available

from .cases import offsets_of

Run = Callable[[Tensor, list[int], Tensor | None], tuple[Tensor, Tensor]]  # tokens (T, 11), lengths, state
WIDTH, STATES = 2, 3
PARAMETERS = torch.randn(40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def run_selective_scan(tokens, lengths, state):
    u, delta, B, C, _ = tokens.split([WIDTH, WIDTH, STATES, STATES, 1], dim=1)
    A = -PARAMETERS[:6].abs().view(WIDTH, STATES).to(u.dtype)
    return selective_scan(
        u, delta, A, B, C, None, None, None, offsets_of(lengths),
        delta_softplus=True, initial_state=state, return_state=True,
    )  # fmt: skip


def run_ssd_scan(tokens, lengths, state):
    x, dt, B, C = tokens.split([4, 1, STATES, STATES], dim=1)
    A = -PARAMETERS[:1].abs().to(x.dtype)
    return ssd_scan(
        x[:, None], dt, A, B[:, None], C[:, None], None, None, None, offsets_of(lengths),
        initial_state=state, return_state=True,
    )  # fmt: skip


def run_causal_conv1d(tokens, lengths, state):
    parameters = PARAMETERS.to(tokens.dtype)
    weight = parameters[:33].view(11, 3)
    return causal_conv1d(
        tokens, weight, parameters[:11], offsets_of(lengths), activation="silu", initial_state=state, return_state=True
    )


def run_gru(tokens, lengths, state):
    parameters = PARAMETERS.to(tokens.dtype)
    weights = [(parameters[:33].view(3, 11), parameters[30:33].view(3, 1), parameters[:3], parameters[3:6])]
    state = None if state is None else state.transpose(0, 1).contiguous()
    y, state = gru(tokens, weights, offsets_of(lengths), h0=state, return_state=True)
    return y, state.transpose(0, 1)  # sequences first, as the others have it


RUNS = {
    "causal_conv1d": run_causal_conv1d,
    "gru": run_gru,
    "selective_scan": run_selective_scan,
    "ssd_scan": run_ssd_scan,
}
# float64 is eager's; the native kernels take float32.
OPERATORS = pytest.mark.parametrize(
    ("run", "dtype"),
    [
        pytest.param(run, dtype, id=f"{name}-{dtype}")
        for name, run in RUNS.items()
        for dtype in (torch.float64, torch.float32)
        if dtype == torch.float64 or available(name)["native"] is None
    ],
)
some_lengths = st.lists(st.integers(0, 40), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)
check = settings(max_examples=15)


def make_tokens(lengths: list[int], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(sum(lengths), 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_equal_sums(actual: Tensor, expected: Tensor) -> None:
    """Equal but for rounding."""
    tolerance = 1e-10 if expected.dtype == torch.float64 else 2e-5
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@OPERATORS
@check
@given(length=st.integers(1, 70), seed=seeds, data=st.data())
def test_the_future_does_not_change_the_past(run: Run, dtype, length, seed, data):
    tokens = make_tokens([3, length], seed, dtype)
    now = 3 + data.draw(st.integers(0, length - 1))
    y, _ = run(tokens, [3, length], None)
    changed = tokens.clone()
    changed[now:] += 1
    assert_equal_sums(run(changed, [3, length], None)[0][:now], y[:now])


@OPERATORS
@check
@given(lengths=some_lengths, seed=seeds, data=st.data())
def test_two_halves_with_the_state_equal_the_whole(run: Run, dtype, lengths, seed, data):
    tokens = make_tokens(lengths, seed, dtype)
    first = [data.draw(st.integers(0, n)) for n in lengths]
    second = [n - k for n, k in zip(lengths, first, strict=True)]
    pieces = [
        piece.split(cut) for piece, cut in zip(tokens.split(lengths), zip(first, second, strict=True), strict=True)
    ]
    y, state = run(tokens, lengths, None)
    first_y, between = run(torch.cat([a for a, _ in pieces]), first, None)
    second_y, final = run(torch.cat([b for _, b in pieces]), second, between.contiguous())
    halves = zip(first_y.split(first), second_y.split(second), strict=True)
    assert_equal_sums(torch.cat([half for pair in halves for half in pair]), y)
    assert_equal_sums(final, state)
