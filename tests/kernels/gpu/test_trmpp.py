"""Trm++ as it runs on a GPU: bf16 beside an fp32 residual stream, gate and up as one product, one table of angles."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from uqabench.encoders import build_encoder
from uqabench.kernels import use_backend
from uqabench.kernels.operator import Kernel

from ..cases import offsets_of
from .conftest import DEVICE

pytest.importorskip("triton")

LENGTHS = [9, 0, 30, 1]


def states_and_gradients(backend: str, dtype: torch.dtype, is_autocast: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    encoder = build_encoder("trm++", "tiny", layers=3, dropout=0.0, init_std=0.2).to(DEVICE, dtype)
    x = torch.randn(sum(LENGTHS), encoder.width).to(DEVICE, dtype).requires_grad_()
    offsets = offsets_of(LENGTHS).to(DEVICE)
    with use_backend(backend), torch.autocast(DEVICE, torch.bfloat16, enabled=is_autocast):
        states = encoder(x, offsets)
        states.backward(torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).to(states))
    named = {"x": x, **dict(encoder.named_parameters())}
    return {"states": states.detach(), **{name: p.grad for name, p in named.items()}}


@pytest.mark.parametrize(("is_autocast", "tolerance"), [(False, 1e-4), (True, 5e-2)])
def test_matches_the_reference_with_all_gradients(is_autocast, tolerance):
    expected = states_and_gradients("reference", torch.float64, False)
    found = states_and_gradients("triton", torch.float32, is_autocast)
    for name, want in expected.items():
        assert found[name].dtype == torch.float32, "parameters and the residual stream"
        error = (found[name].double() - want).norm() / want.norm()
        assert error <= tolerance, (name, float(error))


def test_what_a_layer_runs(monkeypatch):
    """Both norms with the sums before them, one table of angles for all layers, and products of bf16."""
    calls: Counter[str] = Counter()
    call = Kernel.__call__

    def counted(kernel, backend, *args):
        tensors = [x for x in args if isinstance(x, Tensor)]
        calls[kernel.op._name.removeprefix("uqabench::"), tensors[0].dtype] += 1
        return call(kernel, backend, *args)

    monkeypatch.setattr(Kernel, "__call__", counted)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        states_and_gradients("triton", torch.float32, True)
    half = torch.bfloat16
    assert {name: n for (name, dtype), n in calls.items() if name.startswith(("rms", "rope", "swiglu"))} == {
        "rms_norm": 1, "rms_norm_sum": 5, "rms_norm_backward": 6, "rope_angles": 1, "rope": 6, "swiglu": 3,
        "swiglu_backward": 3,
    }  # fmt: skip
    assert all(dtype == half for (name, dtype) in calls if name in ("rms_norm_sum", "rope", "swiglu"))
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::mm"] == 3 * 3 * 4, "a product forward and two backward for qkv, out, gate beside up, and down"
