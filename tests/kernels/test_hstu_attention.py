from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import hstu_attention, use_backend
from uqabench.kernels.backend import available
from uqabench.kernels.hstu_attention.buckets import MOST_BUCKETS, bucket_starts, time_buckets
from uqabench.kernels.hstu_attention.reference import time_bucket

BACKENDS = [name for name in ("eager", "native") if available("hstu_attention")[name] is None]  # gpu/ has the others
# 32 is the native kernel's block of queries, 64 the eager one's.
RAGGED = [[], [0], [1], [31], [32], [33], [64], [65], [0, 1, 31, 32, 33, 0, 5], [70, 2, 65, 63, 0]]
MAX_LEN = 80
BIASES = ["none", "position", "time", "both"]


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(tokens: int, bias: str = "none", dtype=torch.float32, heads=2, width=5, value_width=7):
    torch.manual_seed(tokens)
    inputs = {"q": torch.randn(tokens, heads, width), "k": torch.randn(tokens, heads, width)}
    inputs["v"] = torch.randn(tokens, heads, value_width)
    if bias in ("position", "both"):
        inputs["position_bias"] = torch.randn(2 * MAX_LEN - 1)
    if bias in ("time", "both"):
        inputs["time_bias"] = torch.randn(24)
    return {name: x.to(dtype) for name, x in inputs.items()}


def call_with(lengths, max_len=MAX_LEN, scale=0.7):
    offsets = offsets_of(lengths)
    times = torch.randint(0, 10**6, (int(offsets[-1]),), generator=torch.Generator().manual_seed(1))

    def call(q, k, v, position_bias=None, time_bias=None):
        timestamps = times if time_bias is not None else None
        bias = {"position_bias": position_bias, "time_bias": time_bias, "timestamps": timestamps}
        return hstu_attention(q, k, v, offsets, max_len=max_len, scale=scale, **bias)

    return call


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, bias, lengths):
    matches_reference(call_with(lengths), make_inputs(sum(lengths), bias), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "width", "value_width"), [(1, 1, 1), (3, 16, 32), (2, 32, 31), (1, 64, 40)])
def test_widths(matches_reference, backend, heads, width, value_width):
    lengths = [33, 9]
    inputs = make_inputs(42, "both", heads=heads, width=width, value_width=value_width)
    matches_reference(call_with(lengths), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_of_512(matches_reference, backend):
    offsets = offsets_of([512])
    inputs = make_inputs(512, heads=1, width=4, value_width=4)
    matches_reference(lambda q, k, v: hstu_attention(q, k, v, offsets, max_len=512), inputs, backend)


def test_bf16(matches_reference):
    matches_reference(call_with([33, 9, 70]), make_inputs(112, "both", torch.bfloat16), "eager")


def test_gradcheck():
    inputs = make_inputs(9, "both", torch.float64, width=2, value_width=2)
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    call = call_with([3, 0, 5, 1])
    assert torch.autograd.gradcheck(lambda *x: call(**dict(zip(inputs, x, strict=True))), tuple(inputs.values()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_views_of_one_projection(backend):
    """q, k and v as an encoder has them: slices of one product, with no copy made."""
    joint = torch.randn(40, 3 * 2 * 8, requires_grad=True)
    offsets = offsets_of([33, 7])

    def run(copy):
        q, k, v = (part.unflatten(1, (2, 8)) for part in joint.chunk(3, dim=1))
        parts = (x.contiguous() for x in (q, k, v)) if copy else (q, k, v)
        out = hstu_attention(*parts, offsets, max_len=40)
        return out, torch.autograd.grad(out.square().sum(), joint)[0]

    with use_backend(backend):
        for strided, copied in zip(run(False), run(True), strict=True):
            assert torch.equal(strided, copied)


@pytest.mark.parametrize("backend", BACKENDS)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5), data=st.data())
@settings(max_examples=15)
def test_sequences_do_not_see_each_other_nor_the_future(backend, lengths, data):
    inputs = make_inputs(sum(lengths), "both")
    offsets = offsets_of(lengths)
    with use_backend(backend):
        before = call_with(lengths)(**inputs)
        if sum(lengths):
            changed = data.draw(st.integers(0, sum(lengths) - 1))
            with torch.no_grad():
                for name in ("q", "k", "v"):
                    inputs[name][changed] += 1
            after = call_with(lengths)(**inputs)
            end = int(offsets[torch.searchsorted(offsets, changed, right=True)])
            same = torch.ones(sum(lengths), dtype=torch.bool)
            same[changed:end] = False
            torch.testing.assert_close(after[same], before[same], rtol=1e-5, atol=1e-6)
            assert not torch.equal(after[changed], before[changed])


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_may_be_permuted(backend):
    lengths, order = [40, 3, 0, 33], [3, 1, 0, 2]
    inputs = make_inputs(76, "position")
    tokens = torch.cat([torch.arange(76).split(lengths)[b] for b in order])
    with use_backend(backend):
        straight = call_with(lengths)(**inputs)
        permuted = {name: x if name == "position_bias" else x[tokens] for name, x in inputs.items()}
        shuffled = call_with([lengths[b] for b in order])(**permuted)
    torch.testing.assert_close(shuffled, straight[tokens], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_sequence(backend):
    inputs = make_inputs(50)
    inputs["v"][30] = float("nan")
    with use_backend(backend):
        out = call_with([25, 20, 5])(**inputs)
    assert out[:25].isfinite().all() and out[45:].isfinite().all()
    assert out[30:45].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_saturate(backend):
    """SiLU at +-1000: x and 0, without overflow."""
    q = torch.tensor([[[1000.0]], [[-1000.0]]])
    ones = torch.ones(2, 1, 1)
    with use_backend(backend):
        out = hstu_attention(q, ones, ones, offsets_of([1, 1]), max_len=1)
    torch.testing.assert_close(out.flatten(), torch.tensor([1000.0, 0.0]))


def test_buckets_follow_the_formula():
    gaps = sorted({max(0, start + d) for start in bucket_starts(60) for d in (-1, 0, 1)})
    signed = torch.tensor([*gaps, *(-gap for gap in gaps)])
    expected = [time_bucket(gap, 60) for gap in gaps]
    assert time_buckets(signed, 60).tolist() == expected * 2
    assert time_buckets(torch.tensor([2**62, 0]), 4).tolist() == [3, 0]
    assert bucket_starts(MOST_BUCKETS + 1)[-1] == 2**63 - 1 > bucket_starts(MOST_BUCKETS)[-1]


@pytest.mark.parametrize("num_buckets", [1, 5, 300])
def test_native_buckets_equal_eager_ones(num_buckets):
    """At every boundary, at both ends of int64's range, and with more buckets than any gap reaches."""
    gaps = sorted({start + d for start in bucket_starts(MOST_BUCKETS) for d in (-1, 0)})
    times = torch.tensor([0, *gaps])
    tokens = times.flip(0).unsqueeze(1).repeat(1, 2)  # pairs (t, 0): each gap alone, in a sequence of two
    tokens[:, 0] = 0
    ones = torch.ones(tokens.numel(), 1, 1)
    offsets = torch.arange(0, tokens.numel() + 1, 2)
    table = torch.arange(num_buckets, dtype=torch.float32).requires_grad_()
    results = []
    for backend in ("native", "eager"):
        with use_backend(backend):
            arguments = {"time_bias": table, "timestamps": tokens.flatten()}
            out = hstu_attention(ones, ones, ones, offsets, max_len=2, **arguments)
            results.append((out.detach(), *torch.autograd.grad(out.sum(), table)))
    for native, eager in zip(*results, strict=True):
        torch.testing.assert_close(native, eager)


def test_works_in_inference_mode_and_without_gradients():
    inputs = make_inputs(40, "both")
    expected = call_with([33, 7])(**inputs)
    with torch.inference_mode():
        assert torch.equal(call_with([33, 7])(**make_inputs(40, "both")), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": torch.zeros(5, 2)}, ValueError, "q must have shape"),
        ({"k": torch.zeros(5, 2, 4)}, ValueError, r"k must have shape \(5, 2, 3\)"),
        ({"v": torch.zeros(4, 2, 3)}, ValueError, r"v must have shape \(5, 2, \*\)"),
        ({"v": torch.zeros(5, 2, 3, dtype=torch.float64)}, TypeError, "v is float64, but q is float32"),
        ({"q": torch.zeros(5, 2, 3, dtype=torch.int64)}, TypeError, "q must be float32"),
        ({"k": torch.zeros(5, 3, 2).transpose(1, 2)}, ValueError, "k must be contiguous in its last dimension"),
        ({"offsets": torch.tensor([0, 4])}, ValueError, "offsets must end at the number of tokens"),
        ({"max_len": 4}, ValueError, "max_len is 4, but a sequence has 5 tokens"),
        ({"max_len": 5.0}, TypeError, "max_len must be an int"),
        ({"max_len": 0}, ValueError, "max_len must be above 0"),
        ({"scale": float("inf")}, ValueError, "scale must be finite"),
        ({"position_bias": torch.zeros(10)}, ValueError, r"position_bias must have shape \(11,\), not \(10,\)"),
        ({"time_bias": torch.zeros(8)}, ValueError, "timestamps must be given with time_bias"),
        ({"timestamps": torch.zeros(5, dtype=torch.int64)}, ValueError, "timestamps must not be given without"),
        (
            {"time_bias": torch.zeros(0), "timestamps": torch.zeros(5, dtype=torch.int64)},
            ValueError,
            "time_bias must have at least one bucket",
        ),
        ({"time_bias": torch.zeros(8), "timestamps": torch.zeros(5)}, TypeError, "timestamps must be int64"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    good = {name: torch.zeros(5, 2, 3) for name in "qkv"} | {"offsets": torch.tensor([0, 5]), "max_len": 6}
    with pytest.raises(error, match=message):
        hstu_attention(**(good | change))
