"""The control without layers."""

from __future__ import annotations

import torch

from uqabench.encoders import UserEncoder, build_encoder
from uqabench.settings.encoders import PRESET_NAMES, WIDTHS, UserEncoderConfig


def test_states_are_what_the_tower_says_of_each_item_whatever_stands_around(small_store):
    torch.manual_seed(0)
    model = UserEncoder.build(UserEncoderConfig(encoder="bag-of-items", preset="tiny"), small_store.catalogue)
    items = torch.tensor([5, 3, 5, 7, 3])
    states = model.states(items, torch.tensor([0, 2, 2, 5]), torch.arange(5))
    torch.testing.assert_close(states, model.tower(items), rtol=0, atol=0)
    torch.testing.assert_close(states[0], states[2], rtol=0, atol=0)
    assert model.causal and not list(model.encoder.parameters())


def test_it_is_as_wide_as_other_encoders_of_a_preset():
    assert [build_encoder("bag-of-items", preset).width for preset in PRESET_NAMES] == [
        WIDTHS[preset] for preset in PRESET_NAMES
    ]
