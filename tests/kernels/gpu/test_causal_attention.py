"""Causal attention: lengths around the tiles' bounds, head sizes, scales, NaN, and who else may run it."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import causal_attention, use_backend
from uqabench.kernels.causal_attention import flash

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, outputs_and_gradients, reference_results
from .conftest import DEVICE, assert_case_matches, gpu_results

BF16, FP32 = torch.bfloat16, torch.float32


def inputs_of(tokens, dtype=FP32, heads=1, width=5, value_width=5):
    generator = torch.Generator().manual_seed(tokens)
    widths = {"q": width, "k": width, "v": value_width}
    return {n: torch.randn(tokens, heads, w, generator=generator).to(dtype) for n, w in widths.items()}


def call_with(lengths, scale=None):
    offsets = offsets_of(lengths)
    return lambda q, k, v: causal_attention(q, k, v, offsets.to(q.device), scale=scale)


def check(inputs, call, dtype):
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), TOLERANCES[dtype])


@pytest.mark.parametrize(
    ("lengths", "dtype"),
    [((31, 32, 33, 0, 1), FP32), ((65,), FP32), ((127, 0, 1, 128), BF16), ((129,), BF16)],
    ids=str,
)
def test_lengths_around_the_tiles(lengths, dtype):
    check(inputs_of(sum(lengths), dtype), call_with(lengths), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [FP32, BF16, torch.float16], ids=str)
@pytest.mark.parametrize("lengths", [(300, 5, 257), (63, 64, 256, 255), (512,)], ids=str)
def test_several_tiles(lengths, dtype):
    inputs = inputs_of(sum(lengths), dtype, 2, 24, 24)
    tolerance = TOLERANCES.get(dtype, 5e-3)
    call = call_with(lengths)
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), tolerance)


@pytest.mark.parametrize(
    ("heads", "width", "value_width", "scale"),
    [(1, 1, 1, 0.0), (2, 16, 40, -0.3), (1, 64, 64, 0.2), (1, 96, 256, None), (1, 520, 3, None)],
)
def test_head_sizes_and_scales(heads, width, value_width, scale):
    check(inputs_of(20, FP32, heads, width, value_width), call_with((17, 3), scale), FP32)


def test_small_batches_of_other_dtypes():
    assert_case_matches("causal_attention", "triton", (3, 0, 2), BF16)
    inputs, call = inputs_of(9, torch.float16), call_with((4, 5))
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), 5e-3)


def test_large_scores_do_not_overflow_and_the_first_token_sees_itself_only():
    inputs, call = inputs_of(40), call_with((33, 7))
    inputs["q"] *= 1000
    output = gpu_results("triton", call, inputs)["output 0"]
    torch.testing.assert_close(output, reference_results(call, inputs)["output 0"].float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(output[[0, 33]], inputs["v"][[0, 33]])


def test_nan_stays_in_its_sequence_and_what_comes_later_is_not_seen():
    inputs, call = inputs_of(50), call_with((25, 20, 5))
    clean = gpu_results("triton", call, inputs)
    inputs["k"][30] = float("nan")
    results = gpu_results("triton", call, inputs)
    for name, x in results.items():
        assert torch.equal(x[:25], clean[name][:25]) and torch.equal(x[45:], clean[name][45:]), name
    assert torch.equal(results["output 0"][25:30], clean["output 0"][25:30])
    assert results["output 0"][30:45].isnan().all()


def test_strided_gradients_and_the_same_bits_again():
    inputs, offsets = inputs_of(20, heads=2), offsets_of((17, 3)).to(DEVICE)

    def call(q, k, v):  # the output's gradient arrives transposed
        return causal_attention(q, k, v, offsets).transpose(0, 1)

    first, second = (gpu_results("triton", call, inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with use_backend("eager"):
        expected = outputs_and_gradients(call, {name: x.to(DEVICE) for name, x in inputs.items()})
    assert_close(first, {name: x.cpu() for name, x in expected.items()}, 1e-5)


def test_it_is_registered_correctly():
    arguments = [x.to(DEVICE).requires_grad_() for x in inputs_of(3).values()]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments += [offsets_of((1, 2)).to(DEVICE), 0.3, "triton"]
    torch.library.opcheck(torch.ops.uqabench.causal_attention, arguments, test_utils=tests)


@pytest.fixture
def packages(monkeypatch):
    """`packages(flash_attn, varlen)`: which of them can be imported."""

    def choose(flash_attn: bool, varlen: bool) -> None:
        usable = {flash.FLASH_ATTN_3: False, flash.FLASH_ATTN: flash_attn, flash.TORCH_VARLEN: varlen}
        monkeypatch.setattr(flash, "problem", lambda name: None if usable[name] else "not installed")

    monkeypatch.delenv("UQABENCH_BACKEND", raising=False)
    return choose


def test_who_runs_on_cuda(packages, monkeypatch):
    own = flash.choose("causal_attention", "cuda", BF16)
    packages(True, True)
    assert flash.implementation("cuda", BF16, 64) == "flash-attn"
    assert flash.implementation("cuda", torch.float16, 256) == "flash-attn"
    for dtype, width, value_width in [(FP32, 64, 64), (BF16, 264, 264), (BF16, 64, 128), (BF16, 20, 20)]:
        chosen = flash.choose("causal_attention", "cuda", dtype)
        assert flash.implementation("cuda", dtype, width, value_width) == chosen
    assert flash.implementation("cpu", BF16, 64) == flash.choose("causal_attention", "cpu", BF16)
    with use_backend("triton"):
        assert flash.implementation("cuda", BF16, 64) == "triton"
    packages(False, True)
    assert flash.implementation("cuda", BF16, 64, is_trained=False) == "torch varlen_attn"
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert flash.implementation("cuda", BF16, 64) == "torch varlen_attn"
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    assert flash.implementation("cuda", BF16, 64) == own  # its gradients are summed in any order
    packages(False, False)
    assert flash.implementation("cuda", BF16, 64, is_trained=False) == own


def test_what_torch_is_given(monkeypatch):
    """Its call, recorded: it runs on a GPU only. Those of flash-attn are in test_flash.py."""
    calls = []

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
        calls.append((cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size))
        return value

    monkeypatch.setattr(flash.importlib.import_module("torch.nn.attention.varlen"), "varlen_attn", varlen_attn)
    inputs, offsets = inputs_of(7, BF16, 2, 8, 8), offsets_of((2, 0, 5))
    assert flash.causal_attention(flash.TORCH_VARLEN, **inputs, offsets=offsets, scale=0.3) is inputs["v"]
    ((first, second, *rest),) = calls
    assert first is second and first.dtype == torch.int32 and first.tolist() == [0, 2, 2, 7]
    assert rest == [5, 5, 0.3, (-1, 0)]
