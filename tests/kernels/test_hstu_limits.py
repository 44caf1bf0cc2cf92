"""HSTU attention with targets, a local window, a contextual prefix and a scale a token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import silu

from uqabench.kernels import hstu_attention, use_backend
from uqabench.kernels.backend import available

from .cases import offsets_of
from .conftest import TOLERANCES, assert_close, outputs_and_gradients, reference_results

BACKENDS = [
    name for name in ("eager", "native") if available("hstu_attention (limited)")[name] is None
]  # gpu/ has the others
MAX_LEN = 140
# Lengths at the edges of the backends' blocks of 16, 32 and 64 queries, and their targets: none, some, all.
LENGTHS = [70, 1, 0, 5, 33, 64, 4]
TARGETS = [3, 1, 0, 5, 0, 20, 0]
LIMITS = [(0, 0), (3, 0), (0, 4), (2, 4), (20, 1), (40, 40), (1, 70)]


def visible(length: int, targets: int, window: int, prefix: int) -> torch.Tensor:
    """Bool (length, length), by regions: rows are queries."""
    history = length - targets
    prefix = min(prefix, history)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    chunks = ([prefix] if prefix else []) + [1] * (history - prefix) + [targets]
    chunk = torch.repeat_interleave(torch.arange(len(chunks)), torch.tensor(chunks))
    if window:
        seen &= chunk[:, None] - chunk[None, :] <= window
    seen[:prefix, :history] = True
    seen[history:, history:] = False
    return seen | torch.eye(length, dtype=torch.bool)


def dense(q, k, v, offsets, targets, window=0, prefix=0, position_bias=None, time_bias=None, timestamps=None):
    """The operator as one masked matrix a sequence, in q's dtype."""
    rows = []
    for b, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        queries, keys, values = (x[start:end].transpose(0, 1) for x in (q, k, v))
        scores = 0.7 * queries @ keys.mT
        if position_bias is not None:
            at = torch.arange(end - start)
            scores = scores + position_bias[at[:, None] - at[None, :] + MAX_LEN - 1]
        if time_bias is not None:
            times = timestamps[start:end].double()
            gaps = (times[:, None] - times[None, :]).abs().clamp(min=1).log() / 0.301
            scores = scores + time_bias[gaps.long().clamp(max=len(time_bias) - 1)]
        weights = silu(scores) / MAX_LEN * visible(end - start, targets[b], window, prefix)
        rows.append((weights @ values).transpose(0, 1))
    return torch.cat(rows)


def make_inputs(tokens: int, bias: bool, dtype=torch.float32, heads=2, width=5, value_width=7):
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = {"q": normal(tokens, heads, width), "k": normal(tokens, heads, width)}
    inputs["v"] = normal(tokens, heads, value_width)
    if bias:
        inputs |= {"position_bias": normal(2 * MAX_LEN - 1), "time_bias": normal(24)}
        inputs["timestamps"] = torch.randint(0, 10**6, (tokens,), generator=generator)
    return inputs


def call_with(lengths, targets=None, window=0, prefix=0):
    limits = {"max_attn_len": window, "contextual_seq_len": prefix}
    if targets is not None:
        limits["num_targets"] = torch.tensor(targets, dtype=torch.int64)

    def call(**inputs):
        return hstu_attention(**inputs, offsets=offsets_of(lengths), max_len=MAX_LEN, scale=0.7, **limits)

    return call


def assert_like_the_mask(backend, lengths, targets, window, prefix, bias, dtype=torch.float32, **sizes):
    inputs = make_inputs(sum(lengths), bias, dtype, **sizes)
    precise = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    none = [0] * len(lengths)
    wanted = outputs_and_gradients(
        lambda **x: dense(**x, offsets=offsets_of(lengths), targets=targets or none, window=window, prefix=prefix),
        precise,
    )
    with use_backend(backend):
        assert_close(outputs_and_gradients(call_with(lengths, targets, window, prefix), inputs), wanted,
                     TOLERANCES[dtype])  # fmt: skip


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("targets", [None, TARGETS], ids=["no targets", "targets"])
@pytest.mark.parametrize(("window", "prefix"), LIMITS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_one_masked_matrix(backend, window, prefix, targets, bias):
    assert_like_the_mask(backend, LENGTHS, targets, window, prefix, bias)


def test_the_reference_is_one_masked_matrix_too():
    for window, prefix in ((0, 0), (2, 3)):
        assert_like_the_mask("reference", [9, 0, 5, 2], [2, 0, 5, 0], window, prefix, True, torch.float64)


@given(data=st.data())
@settings(max_examples=25)
def test_any_combination_matches_the_reference(data):
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    targets = data.draw(st.none() | st.tuples(*(st.integers(0, n) for n in lengths)).map(list))
    call = call_with(lengths, targets, data.draw(st.integers(0, 45)), data.draw(st.integers(0, 45)))
    inputs = make_inputs(sum(lengths), data.draw(st.booleans()), heads=1, width=3, value_width=2)
    expected = reference_results(call, inputs)
    for backend in BACKENDS:
        with use_backend(backend):
            assert_close(outputs_and_gradients(call, inputs), expected, TOLERANCES[torch.float32])


def test_bf16():
    assert_like_the_mask("eager", LENGTHS, TARGETS, 6, 3, True, torch.bfloat16)


@pytest.mark.parametrize(("window", "prefix"), [(0, 0), (2, 0), (3, 2)])
def test_gradcheck(window, prefix):
    inputs = make_inputs(9, True, torch.float64, width=2, value_width=2)
    times = inputs.pop("timestamps")
    names = [*inputs, "attn_scale"]
    inputs["attn_scale"] = torch.rand(9, dtype=torch.float64)
    call = call_with([3, 0, 5, 1], [1, 0, 2, 1], window, prefix)
    leaves = [inputs[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(lambda *x: call(**dict(zip(names, x, strict=True)), timestamps=times), leaves)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_attn_scale_stands_for_the_divisor(backend):
    lengths = [9, 0, 6]
    scale = torch.rand(15, dtype=torch.float64)

    def scaled(q, attn_scale, **others):
        return call_with(lengths, [2, 0, 1])(q=q, attn_scale=attn_scale, **others)

    def by_hand(q, attn_scale, **others):
        rows = dense(q, offsets=offsets_of(lengths), targets=[2, 0, 1], **others)
        return rows * MAX_LEN * attn_scale[:, None, None]

    inputs = make_inputs(15, False)
    precise = {name: x.double() for name, x in inputs.items()}
    wanted = outputs_and_gradients(by_hand, precise | {"attn_scale": scale})
    with use_backend(backend):
        got = outputs_and_gradients(scaled, inputs | {"attn_scale": scale.float()})
    assert_close(got, wanted, TOLERANCES[torch.float32])


@pytest.mark.parametrize("backend", BACKENDS)
def test_limits_that_limit_nothing_change_nothing(backend):
    lengths = [70, 0, 33]
    inputs = make_inputs(103, True)
    with use_backend(backend):
        plain = call_with(lengths)(**inputs)
        for limited in (call_with(lengths, [0, 0, 0]), call_with(lengths, [1, 0, 1]), call_with(lengths, window=70)):
            torch.testing.assert_close(limited(**inputs), plain, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_of_a_target_stays_with_it(backend):
    inputs = make_inputs(40, True)
    for name in "qk":
        inputs[name][[30, 39]] = float("nan")
    with use_backend(backend):
        out = call_with([32, 8], [4, 2])(**inputs)
    assert out[[30, 39]].isnan().all()
    others = [i for i in range(40) if i not in (30, 39)]
    assert out[others].isfinite().all()


def test_compiles_into_one_graph():
    torch.compiler.reset()
    inputs = make_inputs(40, True)
    targets = torch.tensor([3, 0, 1])

    def call(offsets, targets, **arrays):
        return hstu_attention(**arrays, offsets=offsets, max_len=MAX_LEN, num_targets=targets, max_attn_len=9)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=True)
    offsets = offsets_of([20, 0, 20])
    assert torch.equal(compiled(offsets, targets, **inputs), call(offsets, targets, **inputs))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_targets": torch.tensor([6])}, ValueError, r"num_targets\[0\] is 6, but the sequence has 5 tokens"),
        ({"num_targets": torch.tensor([-1])}, ValueError, r"num_targets\[0\] is -1"),
        ({"num_targets": torch.tensor([1, 1])}, ValueError, r"num_targets must have shape \(1,\)"),
        ({"num_targets": torch.tensor([1.0])}, TypeError, "num_targets must be int64"),
        ({"max_attn_len": -1}, ValueError, "max_attn_len must be 0 or above"),
        ({"max_attn_len": 10**300}, ValueError, r"max_attn_len must be below 2\*\*31"),
        ({"max_attn_len": None}, TypeError, "max_attn_len must be an int"),
        ({"contextual_seq_len": 2.0}, TypeError, "contextual_seq_len must be an int"),
        ({"attn_scale": torch.ones(4)}, ValueError, r"attn_scale must have shape \(5,\)"),
        ({"attn_scale": torch.ones(5, dtype=torch.int64)}, TypeError, "attn_scale must be float32"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    good = {name: torch.zeros(5, 2, 3) for name in "qkv"} | {"offsets": torch.tensor([0, 5]), "max_len": 6}
    with pytest.raises(error, match=message):
        hstu_attention(**(good | change))
