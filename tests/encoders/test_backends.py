"""The demo's encoders on their default backends give the states that the operators' specifications give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from uqabench.encoders import ENCODER_PRESETS, build_encoder
from uqabench.kernels import use_backend


@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_states_of_the_demo_size_are_those_of_the_reference(packed: Callable, name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, "demo").eval()
    batch = packed([20, 0, 1, 33], width=encoder.width)
    with torch.no_grad():
        states = encoder(batch.x, batch.offsets, batch.timestamps)
        with use_backend("reference"):
            expected = encoder(batch.x, batch.offsets, batch.timestamps)
    assert (states - expected).norm() <= 1e-4 * expected.norm()
