"""Pooled vectors against slicing each history by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqabench.errors import InputError
from uqabench.integrations import NEXT, Pooling, span_means, window_means


def packed(lengths, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()])
    return torch.randn(int(offsets[-1]), width, generator=generator), offsets


@given(st.lists(st.sampled_from([0, 1, 2, 3, 5, 17, 64, 70]), min_size=1, max_size=6), st.integers(1, 40))
def test_a_window_is_the_mean_of_the_last_states_to_the_bit(lengths, width):
    windows = (None, 64, 3, 2, 1)
    states, offsets = packed(lengths, width)
    pooled = window_means(*windows)(states, offsets)
    assert pooled.shape == (len(lengths), len(windows), width)
    for i, (begin, end) in enumerate(offsets.unfold(0, 2, 1).tolist()):
        for token, window in enumerate(windows):
            part = states[begin:end] if window is None else states[begin:end][-window:]
            expected = part.mean(0) if len(part) else torch.zeros(width)
            assert torch.equal(pooled[i, token], expected)


def test_spans_may_overlap_and_stand_in_any_order():
    states, _ = packed([20], 3)
    starts, ends = torch.tensor([5, 0, 5, 9, 20]), torch.tensor([12, 7, 6, 9, 20])
    expected = [states[5:12].mean(0), states[:7].mean(0), states[5], torch.zeros(3), torch.zeros(3)]
    assert torch.equal(span_means(states, starts, ends), torch.stack(expected))


def test_bfloat16_is_summed_in_float32():
    states = torch.ones(4096, 2, dtype=torch.bfloat16)  # a bfloat16 sum would stop growing at 256
    pooled = window_means(None)(states, torch.tensor([0, 4096]))
    assert pooled.dtype == torch.bfloat16
    assert pooled.tolist() == [[[1.0, 1.0]]]


def test_gradients_reach_each_state_once_for_each_window():
    states, offsets = packed([4, 0, 2], 2)
    states.requires_grad_()
    window_means(None, 2)(states, offsets).sum().backward()
    assert torch.equal(states.grad[:, 0], torch.tensor([0.25, 0.25, 0.75, 0.75, 1.0, 1.0]))


def test_no_histories():
    assert window_means(None, 1)(torch.zeros(0, 5), torch.zeros(1, dtype=torch.int64)).shape == (0, 2, 5)


def test_names_tell_poolings_apart():
    names = [window_means(*windows).name for windows in ((None,), (1,), (None, 1), (None, 10, 1))]
    assert names == ["mean", "last", "mean+last", "mean+last-10+last"]


@pytest.mark.parametrize("window", [-1, -3])
def test_a_window_without_items_is_refused(window):
    with pytest.raises(InputError, match=f"a window must be a positive number of items or None, not {window}"):
        window_means(None, window)


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda states, offsets: states, r"\(6, 3\)"), (lambda states, offsets: None, "NoneType")],
)
def test_another_shape_than_promised_is_named(function, got):
    states, offsets = packed([4, 2], 3)
    with pytest.raises(InputError, match=rf"The pooling odd returned {got}: it must return a tensor \(2, 2, 3\)"):
        Pooling("odd", 2, function)(states, offsets)


def test_what_comes_next_is_pooled_as_the_last_state():
    states, offsets = torch.randn(9, 3), torch.tensor([0, 4, 4, 9])
    pooling = window_means(None, NEXT)
    torch.testing.assert_close(pooling(states, offsets)[:, 1], window_means(1)(states, offsets)[:, 0])
    assert pooling.name == "mean+next" and pooling.scores and not window_means(None, 1).scores
