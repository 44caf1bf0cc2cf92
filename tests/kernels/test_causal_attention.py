from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import causal_attention, use_backend
from uqabench.kernels.backend import available

BACKENDS = [
    name
    for name, problem in available("causal_attention").items()
    if problem is None and name not in ("reference", "triton")
]
RAGGED = [[], [0], [1], [31], [32], [33], [0, 1, 31, 32, 33, 0, 5], [70, 2, 65, 63, 0]]


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(tokens: int, dtype=torch.float32, heads=2, width=5, value_width=5):
    torch.manual_seed(tokens)
    widths = {"q": width, "k": width, "v": value_width}
    return {name: torch.randn(tokens, heads, w).to(dtype) for name, w in widths.items()}


def call_with(lengths, scale=None):
    offsets = offsets_of(lengths)
    return lambda q, k, v: causal_attention(q, k, v, offsets, scale=scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, lengths):
    matches_reference(call_with(lengths), make_inputs(sum(lengths)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "width", "value_width"), [(1, 1, 1), (3, 16, 32), (1, 64, 40)])
def test_widths_and_scale(matches_reference, backend, heads, width, value_width):
    inputs = make_inputs(42, heads=heads, width=width, value_width=value_width)
    matches_reference(call_with([33, 9], scale=0.3), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_of_512(matches_reference, backend):
    matches_reference(call_with([512]), make_inputs(512, heads=1), backend)


def test_bf16(matches_reference):
    matches_reference(call_with([33, 9, 70]), make_inputs(112, torch.bfloat16), "eager")


def test_gradcheck():
    inputs = tuple(x.requires_grad_() for x in make_inputs(9, torch.float64, width=2, value_width=2).values())
    assert torch.autograd.gradcheck(call_with([3, 0, 5, 1]), inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5), data=st.data())
@settings(max_examples=15)
def test_sequences_do_not_see_each_other_nor_the_future(backend, lengths, data):
    inputs = make_inputs(sum(lengths))
    offsets = offsets_of(lengths)
    with use_backend(backend):
        before = call_with(lengths)(**inputs)
        if sum(lengths):
            changed = data.draw(st.integers(0, sum(lengths) - 1))
            for x in inputs.values():
                x[changed] += 1
            after = call_with(lengths)(**inputs)
            end = int(offsets[torch.searchsorted(offsets, changed, right=True)])
            same = torch.ones(sum(lengths), dtype=torch.bool)
            same[changed:end] = False
            torch.testing.assert_close(after[same], before[same], rtol=1e-5, atol=1e-6)
            assert not torch.equal(after[changed], before[changed])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_token_sees_itself_only(backend):
    inputs = make_inputs(40)
    with use_backend(backend):
        out = call_with([33, 7])(**inputs)
    torch.testing.assert_close(out[[0, 33]], inputs["v"][[0, 33]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    inputs = make_inputs(40)
    inputs["q"] *= 1000
    with use_backend(backend):
        out = call_with([33, 7])(**inputs)
    with use_backend("reference"):
        expected = call_with([33, 7])(**inputs)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_sequence(backend):
    inputs = make_inputs(50)
    inputs["k"][30] = float("nan")
    with use_backend(backend):
        out = call_with([25, 20, 5])(**inputs)
    assert out[:25].isfinite().all() and out[45:].isfinite().all()
    assert out[30:45].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_views_of_one_projection(backend):
    joint = torch.randn(40, 3 * 2 * 8, requires_grad=True)

    def run(copy):
        q, k, v = (part.unflatten(1, (2, 8)) for part in joint.chunk(3, dim=1))
        parts = (x.contiguous() for x in (q, k, v)) if copy else (q, k, v)
        out = causal_attention(*parts, offsets_of([33, 7]))
        return out, torch.autograd.grad(out.square().sum(), joint)[0]

    with use_backend(backend):
        for strided, copied in zip(run(False), run(True), strict=True):
            torch.testing.assert_close(strided, copied)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": torch.zeros(5, 2)}, ValueError, "q must have shape"),
        ({"k": torch.zeros(5, 2, 4)}, ValueError, r"k must have shape \(5, 2, 3\)"),
        ({"v": torch.zeros(5, 1, 3)}, ValueError, r"v must have shape \(5, 2, \*\)"),
        ({"k": torch.zeros(5, 2, 3, dtype=torch.float64)}, TypeError, "k is float64, but q is float32"),
        ({"offsets": torch.tensor([0, 6])}, ValueError, "offsets must end at the number of tokens"),
        ({"scale": "1"}, TypeError, "scale must be a number"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    good = {name: torch.zeros(5, 2, 3) for name in "qkv"} | {"offsets": torch.tensor([0, 5])}
    with pytest.raises(error, match=message):
        causal_attention(**(good | change))
