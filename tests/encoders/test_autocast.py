"""Every encoder under bf16 autocast: forward and backward run, and stay near fp32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uqabench.encoders import build_encoder

NAMES = ("gru4rec", "sasrec", "mamba4rec", "mamba2", "hstu", "trm++")
OFFSETS = torch.tensor([0, 5, 5, 6, 19])


def results(name: str, is_autocast: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, dict[str, Tensor]]:
    """States and gradients, of the parameters and of the input, from the same weights and input."""
    torch.manual_seed(0)
    encoder = build_encoder(name, "tiny", layers=2, dropout=0.0).train()
    x = torch.randn(19, encoder.width).to(dtype).requires_grad_()
    stamps = torch.arange(19) * 3_600
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        states = encoder(x, OFFSETS, stamps)
    states.backward(torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).to(states.dtype))
    gradients = {key: p.grad for key, p in encoder.named_parameters() if p.grad is not None}
    return states.detach(), {**gradients, "x": x.grad}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bf16_autocast_stays_near_fp32(name: str, dtype: torch.dtype):
    states, gradients = results(name, True, dtype)
    expected, exact = results(name, False)
    assert states.dtype == dtype
    assert (states.float() - expected).abs().max() <= 0.03 * expected.abs().max()
    assert set(gradients) == set(exact)
    for key, found in gradients.items():
        assert found.isfinite().all(), key
        error = (found.float() - exact[key]).norm() / exact[key].norm().clamp(min=1e-6)
        assert error <= 0.2, (key, float(error))
