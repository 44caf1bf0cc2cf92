"""The shared argument checks, and the padded groups of ragged sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import checks
from uqabench.kernels.ragged import length_groups

TOKENS = torch.zeros(5, 2)


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        ([0, 5], TypeError, "offsets must be a tensor, not list"),
        (torch.tensor([0, 5], dtype=torch.int32), TypeError, "offsets must be int64, not int32"),
        (torch.tensor([[0, 5]]), ValueError, r"offsets must have shape \(\*,\), not \(1, 2\)"),
        (torch.zeros(0, dtype=torch.int64), ValueError, "offsets must have at least one entry"),
        (torch.tensor([1, 5]), ValueError, "offsets must begin with 0, not 1"),
        (torch.tensor([0, 3, 2, 5]), ValueError, r"offsets must not fall: offsets\[2\] = 2 after 3"),
        (torch.tensor([0, 6]), ValueError, "offsets must end at the number of tokens, 5, not at 6"),
        (torch.tensor([0, 4]), ValueError, "offsets must end at the number of tokens, 5, not at 4"),
        (torch.tensor([0, 9, 5, 9])[::2], ValueError, "offsets must be contiguous"),
        (torch.tensor([0, 5], device="meta"), ValueError, "offsets is on meta, but the input is on cpu"),
    ],
)
def test_bad_offsets(offsets, error, message):
    with pytest.raises(error, match=message):
        checks.check_offsets(offsets, TOKENS)


def test_offsets_without_values():
    with pytest.raises(ValueError, match="offsets is on the device meta, where it has no values"):
        checks.check_offsets(torch.zeros(2, dtype=torch.int64, device="meta"), torch.zeros(3, 1, device="meta"))


def test_offsets_changed_in_place_are_read_again():
    offsets = torch.tensor([0, 2, 5])
    checks.check_offsets(offsets, TOKENS)
    assert checks.host_lengths(offsets) == [2, 3]
    offsets[1] = 4
    assert checks.host_lengths(offsets) == [4, 1]
    offsets[1] = 7
    with pytest.raises(ValueError, match="must not fall"):
        checks.check_offsets(offsets, TOKENS)


def test_offsets_are_read_once():
    offsets = torch.tensor([0, 2, 5])
    assert checks.host_offsets(offsets) is checks.host_offsets(offsets)


def test_offsets_made_in_inference_mode_work():
    with torch.inference_mode():
        offsets = torch.tensor([0, 2, 5])
        checks.check_offsets(offsets, TOKENS)
        offsets[1] = 4
        assert checks.host_lengths(offsets) == [4, 1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: checks.check_tensor(1, "x", ()), TypeError, "x must be a tensor, not int"),
        (lambda: checks.check_tensor(TOKENS, "x", (5, 3)), ValueError, r"x must have shape \(5, 3\), not \(5, 2\)"),
        (lambda: checks.check_tensor(TOKENS.long(), "x", (5, 2)), TypeError, "x must be float32 or .*, not int64"),
        (lambda: checks.check_tensor(TOKENS.T, "x", (2, 5)), ValueError, r"pass x.contiguous\(\)"),
        (lambda: checks.check_rows(torch.zeros(3, 0), "x"), ValueError, "x must have shape .* d >= 1"),
        (lambda: checks.check_rows(None, "x"), TypeError, "x must be a tensor"),
        (lambda: checks.check_heads(torch.zeros(3, 0, 2), "q"), ValueError, "q must have at least one head"),
        (lambda: checks.check_same(TOKENS, "x", w=TOKENS.double()), TypeError, "w is float64, but x is float32"),
        (lambda: checks.check_same(TOKENS, "x", w=TOKENS.to("meta")), ValueError, "w is on meta, but x is on cpu"),
        (lambda: checks.check_like(TOKENS, "x", w=(1, (5,))), TypeError, "w must be a tensor, not int"),
        (lambda: checks.check_like(TOKENS, "x", w=(None, (5,))), TypeError, "w must be a tensor, not NoneType"),
        (lambda: checks.check_like(TOKENS, "x", w=(TOKENS, (5, 3))), ValueError, r"w must have shape \(5, 3\)"),
        (lambda: checks.check_like(TOKENS, "x", w=(TOKENS.double(), (5, 2))), TypeError, "w is float64, but x is"),
        (lambda: checks.check_like(TOKENS, "x", (torch.int64,), w=(TOKENS, (5, 2))), TypeError, "w must be int64, not"),
        (lambda: checks.check_like(TOKENS, "x", w=(TOKENS.to("meta"), (5, 2))), ValueError, "w is on meta, but x is"),
        (lambda: checks.check_indices(torch.tensor([0, 3]), 3, "ids"), ValueError, r"\[0, 3\), but holds 3"),
        (lambda: checks.check_indices(torch.tensor([0, -1]), 3, "ids"), ValueError, r"\[0, 3\), but holds -1"),
        (lambda: checks.check_positive(0, "n"), ValueError, "n must be above 0, not 0"),
        (lambda: checks.check_positive(2.5, "n", integer=True), TypeError, "n must be an int, not float"),
        (lambda: checks.check_positive(True, "n"), TypeError, "n must be a number, not bool"),
        (lambda: checks.check_finite(float("nan"), "n"), ValueError, "n must be finite, not nan"),
        (lambda: checks.check_finite("1", "n"), TypeError, "n must be a number, not str"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@given(lengths=st.lists(st.integers(0, 40), max_size=12), max_cells=st.sampled_from([1, 400, 10**6]))
@settings(max_examples=40)
def test_groups_hold_every_token_once_and_give_it_back(lengths, max_cells):
    offsets = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)
    x = torch.arange(sum(lengths) * 2).view(-1, 2)
    groups = length_groups(offsets, max_cells)
    assert sorted(torch.cat([g.tokens for g in groups]).tolist() if groups else []) == list(range(sum(lengths)))
    for group in groups:
        padded = group.gather(x)
        assert padded.shape[0] == 1 or padded.shape[0] * group.length**2 <= max_cells
        assert torch.equal(group.real(padded), x[group.tokens])
        zero_padded = group.gather_zero_padded(x)
        assert torch.equal(group.real(zero_padded), x[group.tokens])
        assert zero_padded.sum() == x[group.tokens].sum()


def test_values_are_not_read_while_a_graph_is_captured(monkeypatch):
    class OnCuda:
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert checks.are_values_hidden(OnCuda()) and not checks.are_values_hidden(torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert not checks.are_values_hidden(OnCuda())
