"""HSTU attention's Triton kernels with targets, a window and a prefix, at the edges of their tiles."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import hstu_attention

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, reference_results
from .conftest import gpu_results
from .test_hstu_attention import make_inputs

pytest.importorskip("triton")

FP32, BF16 = torch.float32, torch.bfloat16


def assert_matches(lengths, targets, window, prefix, bias, dtype=FP32, **shape):
    max_len = max(lengths) + 2
    inputs = make_inputs(sum(lengths), max_len, bias, dtype, **shape)
    limits = {"max_attn_len": window, "contextual_seq_len": prefix}

    def call(q, **others):
        offsets = offsets_of(lengths).to(q.device)
        several = {} if targets is None else {"num_targets": torch.tensor(targets, device=q.device)}
        return hstu_attention(q, offsets=offsets, max_len=max_len, scale=0.7, **limits, **several, **others)

    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), TOLERANCES[dtype])


@pytest.mark.parametrize("targets", [None, [3, 0, 1]], ids=["no targets", "targets"])
@pytest.mark.parametrize(("window", "prefix"), [(0, 0), (3, 0), (0, 20), (5, 3)])
def test_limits(window, prefix, targets):
    if targets is None and not (window or prefix):
        pytest.skip("limits nothing")
    assert_matches([40, 0, 1], targets, window, prefix, "none")


def test_limits_with_tables():
    assert_matches([35, 3], [4, 3], 17, 2, "both")


def test_a_prefix_and_all_targets_in_bf16():
    assert_matches([70, 5, 3], [6, 5, 0], 0, 66, "position", BF16, heads=2)


@pytest.mark.slow
@pytest.mark.parametrize("bias", ["none", "both"])
@pytest.mark.parametrize(("window", "prefix"), [(0, 0), (1, 0), (64, 0), (0, 1), (0, 129), (40, 33), (200, 5)])
@pytest.mark.parametrize("targets", [[0, 0, 0, 1, 0], [70, 0, 64, 0, 3]], ids=str)
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_long_limits(window, prefix, targets, bias, dtype):
    assert_matches([200, 0, 64, 1, 127], targets, window, prefix, bias, dtype, heads=2, width=16, value_width=16)
