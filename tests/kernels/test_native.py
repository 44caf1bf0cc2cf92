"""The native module itself: instruction sets, and its own checks of what it is handed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import linear_rank, use_backend
from uqabench.kernels.backend import native_module

NATIVE = native_module()


def test_instruction_sets_are_reported_and_checked(instruction_set):
    assert NATIVE.instruction_set() == instruction_set
    assert NATIVE.instruction_sets()[0] == "baseline"
    with pytest.raises(ValueError, match="instruction set 'mmx' is unknown"):
        NATIVE.set_instruction_set("mmx")


def test_equal_rows_tie_on_every_instruction_set(instruction_set):
    with use_backend("native"):
        ranks = linear_rank(torch.randn(3, 50), torch.randn(1, 50).repeat(99, 1), torch.tensor([0, 50, 98]))
    assert ranks.tolist() == [0, 50, 98]


def test_eager_hstu_attention_is_registered_correctly():
    torch.manual_seed(0)
    q, k, v, position, time = (torch.randn(shape).requires_grad_() for shape in [(9, 2, 5)] * 3 + [(19,), (24,)])
    offsets, times = torch.tensor([0, 5, 9]), torch.arange(9)
    torch.library.opcheck(
        torch.ops.uqabench.hstu_attention, (q, k, v, offsets, 10, 1.0, position, time, times, None, 0, 0, "eager")
    )


def hstu_arrays(**change):
    floats = {name: np.zeros((4, 1, 2), np.float32) for name in ("out", "q", "k", "v")}
    none = dict.fromkeys(("position_bias", "time_bias", "bucket_starts", "timestamps", "num_targets"))
    numbers = {"offsets": np.array([0, 4]), "max_len": 4, "scale": 1.0, "threads": 1}
    numbers |= {"max_attn_len": 0, "contextual_seq_len": 0}
    return floats | none | numbers | change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": np.zeros((4, 1, 2))}, TypeError, "incompatible function arguments"),
        ({"offsets": np.array([0, 4], np.int32)}, TypeError, "incompatible function arguments"),
        ({"k": np.zeros((3, 1, 2), np.float32)}, ValueError, "k has the wrong shape"),
        ({"out": np.zeros((4, 1, 3), np.float32)}, ValueError, "out has the wrong shape"),
        ({"out": np.zeros((8, 1, 2), np.float32)[::2]}, ValueError, "out must be contiguous"),
        ({"q": np.zeros((4, 1, 4), np.float32)[:, :, ::2]}, ValueError, "q must be contiguous in its last"),
        ({"q": np.zeros(33, np.uint8)[1:].view(np.float32).reshape(4, 1, 2)}, ValueError, "q must be aligned"),
        ({"offsets": np.array([0, 5])}, ValueError, "offsets must go from 0 to the number of tokens"),
        ({"offsets": np.array([0, 3, 1, 4])}, ValueError, "offsets must not fall"),
        ({"max_len": 3}, ValueError, "max_len is less than the longest sequence"),
        ({"max_len": 0}, ValueError, "max_len must lie in"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"position_bias": np.zeros(6, np.float32)}, ValueError, "position_bias has the wrong shape"),
        ({"time_bias": np.zeros(6, np.float32)}, ValueError, "time_bias needs timestamps"),
        ({"num_targets": np.array([5])}, ValueError, "num_targets must lie in"),
        ({"max_attn_len": -1}, ValueError, "max_attn_len and contextual_seq_len must be"),
    ],
)
def test_the_module_checks_what_could_leave_memory(change, error, message):
    with pytest.raises(error, match=message):
        NATIVE.hstu_attention_forward(**hstu_arrays(**change))


def test_the_module_checks_gradients():
    x, logs, offsets = np.zeros((4, 1, 2), np.float32), np.zeros((4, 1), np.float32), np.array([0, 4])
    NATIVE.causal_attention_backward(x, x, x, x, x, logs, x, x, x, offsets, scale=1.0, threads=1)
    with pytest.raises(ValueError, match="log_sums has the wrong shape"):
        NATIVE.causal_attention_backward(x, x, x, x, x, logs[:3], x, x, x, offsets, scale=1.0, threads=1)
    with pytest.raises(ValueError, match="grad has the wrong shape"):
        NATIVE.causal_attention_backward(x, x, x, x[:3], x, logs, x, x, x, offsets, scale=1.0, threads=1)


def test_the_module_checks_that_each_token_has_an_item():
    rows, loss = np.ones((2, 3), np.float32), np.zeros((), np.float32)
    none = (None, None)
    NATIVE.linear_cross_entropy(None, loss, *none, rows, rows, None, None, *none, share=0.5, threads=1)
    assert loss == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="weight must have a row for each token"):
        NATIVE.linear_cross_entropy(None, loss, *none, rows, rows[:1], None, None, *none, share=0.5, threads=1)


def test_the_module_checks_targets():
    rank, rows = np.zeros(1, np.int64), np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\)"):
        NATIVE.linear_rank(rank, rows, rows, np.array([1]), threads=1)
