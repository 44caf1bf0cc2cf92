"""HSTU attention's Triton kernels at the edges of their tiles, with each table and without, at many widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import hstu_attention, use_backend
from uqabench.kernels.hstu_attention.buckets import MOST_BUCKETS, bucket_starts, time_buckets

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, assert_same_bits, reference_results
from .conftest import DEVICE, gpu_results

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from uqabench.kernels.hstu_attention.triton_bias import silu_and_gradient, time_bucket  # noqa: E402
from uqabench.kernels.hstu_attention.triton_launch import block_rows, bucket_ends, seconds  # noqa: E402
from uqabench.kernels.memory import know_bounds  # noqa: E402
from uqabench.kernels.triton_tools import on_device_of  # noqa: E402

FP32, BF16 = torch.float32, torch.bfloat16
H100, A100 = 227 << 10, 163 << 10


def make_inputs(tokens: int, max_len: int, bias="none", dtype=FP32, heads=1, width=5, value_width=7):
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    inputs = {
        "q": normal(tokens, heads, width),
        "k": normal(tokens, heads, width),
        "v": normal(tokens, heads, value_width),
    }
    if bias in ("position", "both"):
        inputs["position_bias"] = normal(2 * max_len - 1)
    if bias in ("time", "both"):
        inputs["time_bias"] = normal(9)
        inputs["timestamps"] = torch.randint(0, 60, (tokens,), generator=generator).cumsum(0)
    return inputs


def call_with(lengths, max_len, scale=0.7):
    offsets = offsets_of(lengths)

    def call(q, **others):
        return hstu_attention(q, offsets=offsets.to(q.device), max_len=max_len, scale=scale, **others)

    return call


def assert_matches(lengths, max_len, bias="none", dtype=FP32, **shape) -> None:
    inputs, call = make_inputs(sum(lengths), max_len, bias, dtype, **shape), call_with(lengths, max_len)
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), TOLERANCES[dtype])


def test_the_tiles_that_the_lengths_below_stand_at_the_edges_of():
    assert block_rows(16, 80, FP32, H100) == block_rows(64, 80, FP32, A100) == 32
    assert block_rows(128, 80, FP32, H100) == 16
    assert block_rows(256, 512, BF16, H100) == 128 == block_rows(16, 65, BF16, H100)
    assert block_rows(16, 64, BF16, H100) == 64 == block_rows(256, 512, BF16, A100)
    assert block_rows(512, 512, BF16, H100) == 32


@pytest.mark.parametrize(
    ("lengths", "max_len", "dtype"),
    [([31], 40, FP32), ([33, 0, 32], 33, FP32), ([63, 1, 64], 64, BF16), ([129, 0, 2], 130, BF16)],
    ids=str,
)
def test_lengths_at_the_edges_of_tiles(lengths, max_len, dtype):
    assert_matches(lengths, max_len, "none", dtype)


@pytest.mark.parametrize("bias", ["position", "time", "both"])
def test_each_table(bias):
    assert_matches([35, 3], 35, bias)


def test_tables_over_several_tiles_and_heads_in_bf16():
    assert_matches([65, 0, 5], 70, "both", BF16, heads=2)


@pytest.mark.parametrize(("width", "value_width"), [(17, 1), (1, 40), (130, 16), (16, 256), (300, 20)])
def test_widths(width, value_width):
    assert_matches([18], 18, width=width, value_width=value_width)


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 64, 128, 256, 300])
@pytest.mark.parametrize("bias", ["none", "both"])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_hot_widths(width, bias, dtype):
    assert_matches([130, 0, 64, 1, 127], 130, bias, dtype, heads=2, width=width, value_width=width)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1000, 5000])
def test_long_sequences(length):
    assert_matches([length, 3], length, "none", BF16, width=16, value_width=16)


def test_nan_stays_in_its_sequence_and_bits_do_not_change():
    lengths = [5, 20, 3]
    inputs, call = make_inputs(28, 20, "both"), call_with(lengths, 20)
    others = torch.tensor([True] * 5 + [False] * 20 + [True] * 3)
    clean = gpu_results("triton", call, inputs)
    assert_same_bits(gpu_results("triton", call, inputs), clean)
    for name in "qkv":
        inputs[name] = torch.where(others[:, None, None], inputs[name], torch.nan)
    inputs["timestamps"] = torch.where(others, inputs["timestamps"], 2**62)
    poisoned = gpu_results("triton", call, inputs)
    for name in ("output 0", "gradient of q", "gradient of k", "gradient of v"):
        assert torch.equal(poisoned[name][others], clean[name][others])
        assert poisoned[name][~others].isnan().all()


@pytest.mark.filterwarnings("ignore:overflow")
def test_large_scores_saturate():
    q = torch.tensor([[[1000.0]], [[-1000.0]]], device=DEVICE)
    ones = torch.ones(2, 1, 1, device=DEVICE)
    with use_backend("triton"):
        out = hstu_attention(q, ones, ones, offsets_of([1, 1]).to(DEVICE), max_len=1)
    torch.testing.assert_close(out.flatten().cpu(), torch.tensor([1000.0, 0.0]))


@triton.jit
def list_buckets(buckets, gaps, bucket_ends, last_bucket, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    gap = tl.load(gaps + at, mask=at < count, other=0)
    tl.store(buckets + at, time_bucket(gap, bucket_ends, last_bucket), mask=at < count)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("num_buckets", [1, 5, 60, MOST_BUCKETS])
def test_buckets_at_every_boundary(num_buckets, dtype):
    largest = torch.iinfo(dtype).max - (dtype == torch.int32)
    gaps = sorted({min(start + d, largest) for start in bucket_starts(MOST_BUCKETS) for d in (-1, 0)} | {largest})
    signed = torch.tensor([0, *gaps, *(-gap for gap in gaps)], device=DEVICE, dtype=dtype)
    ends = bucket_ends(num_buckets, dtype, signed.device)
    buckets = torch.full((len(signed),), -1, dtype=torch.int32, device=DEVICE)
    with on_device_of(signed):
        list_buckets[(1,)](buckets, signed, ends, num_buckets - 1, len(signed), BLOCK=1024)
    assert buckets.tolist() == time_buckets(signed.long(), num_buckets).tolist()


def test_gaps_take_32_bits_where_the_host_knows_that_they_fit():
    lengths, spread = [35, 3], 2**31 - 2
    inputs = make_inputs(38, 35, "both")
    inputs["timestamps"] = torch.randint(0, spread, (38,)).sort().values - 2**40
    inputs["timestamps"][[0, -1]] = torch.tensor([-(2**40), spread - 2**40])
    call = call_with(lengths, 35)
    wide, narrow = (
        _told(inputs["timestamps"], bounds).dtype for bounds in ((0, spread + 1), (-(2**40), spread - 2**40))
    )
    assert (wide, narrow) == (torch.int64, torch.int32)
    unknown = gpu_results("triton", call, inputs)
    know_bounds(inputs["timestamps"], inputs["timestamps"].numpy())
    assert seconds(inputs["timestamps"]).dtype == torch.int32
    assert_same_bits(gpu_results("triton", call, inputs), unknown)


def _told(timestamps: torch.Tensor, bounds: tuple[int, int]) -> torch.Tensor:
    return seconds(know_bounds(timestamps.clone(), np.array(bounds)))


@triton.jit
def apply_silu(weights, gradients, halves, count, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    weight, gradient = silu_and_gradient(tl.load(halves + at, mask=at < count, other=0.0), EXACT)
    tl.store(weights + at, weight, mask=at < count)
    tl.store(gradients + at, gradient, mask=at < count)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("exact", [True, False])
def test_silu_of_one_special_function_and_of_two(exact):
    scores = torch.cat((torch.linspace(-40, 40, 2000, dtype=torch.float64), torch.tensor([-1e4, 1e4, 0.0]).double()))
    scores.requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.silu(scores).sum(), scores)
    halves = (scores.detach() / 2).float().to(DEVICE)
    got, got_gradient = torch.empty(2, len(halves), device=DEVICE)
    with on_device_of(halves):
        apply_silu[(1,)](got, got_gradient, halves, len(halves), EXACT=exact, BLOCK=2048)
    # On a GPU the tangent errs by 2**-11; SiLU then by |x| / 2 of that and its derivative, here doubled, by 1 + |x|.
    error = 1e-6 if exact or DEVICE == "cpu" else 2.0**-10.9
    scale = 1 + scores.detach().abs()
    assert ((got.cpu() - torch.nn.functional.silu(scores.detach())).abs() / scale).max() < error
    assert ((got_gradient.cpu() / 2 - gradient).abs() / scale).max() < error
