"""Continuing histories from kept states is the same as reading them from their beginning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from uqabench.data.catalogue import Catalogue
from uqabench.encoders import ENCODER_PRESETS, build_encoder
from uqabench.encoders.item_tower import ItemTower
from uqabench.encoders.user_encoder import UserEncoder
from uqabench.errors import InputError

NAMES = (*ENCODER_PRESETS, "bag-of-items")


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    sizes = {} if name == "bag-of-items" else {"layers": 2, "init_std": 0.2}
    return build_encoder(name, "tiny", **sizes).eval()


def append_in_parts(encoder, x, offsets, timestamps, parts):
    """States of all items, which are appended in len(parts) calls; parts[p][b] items of history b at a time."""
    starts = offsets[:-1].tolist()
    done, state = [0] * len(starts), None
    out = torch.full((x.shape[0], encoder.width), float("nan"))
    for part in parts:
        rows = [start + d + i for start, d, n in zip(starts, done, part, strict=True) for i in range(n)]
        done = [d + n for d, n in zip(done, part, strict=True)]
        given = torch.tensor([0, *part]).cumsum(0)
        out[rows], state = encoder.append(state, x[rows], given, None if timestamps is None else timestamps[rows])
    return out


@pytest.mark.parametrize("name", NAMES)
def test_appended_states_are_those_of_the_whole(name: str, packed: Callable) -> None:
    parts = [[4, 0, 1, 9], [0, 0, 5, 1], [3, 2, 1, 1], [0, 0, 0, 0], [1, 1, 20, 0]]
    batch = packed(np.sum(parts, axis=0).tolist())
    encoder = build(name)
    with torch.no_grad():
        for times in (batch.timestamps, None):
            whole = encoder(batch.x, batch.offsets, times)
            got = append_in_parts(encoder, batch.x, batch.offsets, times, parts)
            torch.testing.assert_close(got, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hstu", "trm++", "mamba2"])
@given(parts=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4))
@settings(max_examples=8)
def test_however_a_history_is_cut(name: str, packed: Callable, parts) -> None:
    batch = packed(np.sum(parts, axis=0).tolist())
    encoder = build(name)
    with torch.no_grad():
        got = append_in_parts(encoder, batch.x, batch.offsets, batch.timestamps, parts)
        whole = encoder(batch.x, batch.offsets, batch.timestamps)
    torch.testing.assert_close(got, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_may_be_continued_twice(name: str, packed: Callable) -> None:
    batch, encoder = packed([7]), build(name)

    def go_on(state, rows):
        return encoder.append(state, batch.x[rows], torch.tensor([0, len(rows)]), batch.timestamps[rows])

    with torch.no_grad():
        _, state = go_on(None, range(4))
        first, _ = go_on(state, range(4, 7))
        go_on(state, [6, 5])
        again, _ = go_on(state, range(4, 7))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", ["hstu", "sasrec"])
def test_histories_have_room_to_the_last(name: str, packed: Callable) -> None:
    encoder, batch = build_encoder(name, "tiny", max_len=8), packed([9])
    _, state = encoder.append(None, batch.x[:7], torch.tensor([0, 7]))
    encoder.append(state, batch.x[7:8], torch.tensor([0, 1]))
    with pytest.raises(InputError, match="9 items.*max_len = 8"):
        encoder.append(state, batch.x[7:], torch.tensor([0, 2]))


def test_a_user_encoder_appends_items(catalogue: Catalogue) -> None:
    torch.manual_seed(0)
    encoder = build("hstu")
    model = UserEncoder(ItemTower(catalogue, encoder.width, item_dim=8, side_dim=8), encoder).eval()
    items = torch.randint(0, len(catalogue), (9,))
    with torch.no_grad():
        whole = model.states(items, torch.tensor([0, 5, 9]))
        _, state = model.append(None, items[[0, 1, 2, 3, 5]], torch.tensor([0, 4, 5]))
        new, _ = model.append(state, items[[4, 6, 7, 8]], torch.tensor([0, 1, 4]))
    torch.testing.assert_close(new, whole[[4, 6, 7, 8]], rtol=1e-4, atol=1e-5)

    model.encoder, model.name = nn.Identity(), "mine:Own"
    with pytest.raises(InputError, match="mine:Own cannot continue histories"):
        model.append(None, items, torch.tensor([0, 5, 9]))
