"""The model of each operator's work against torch's counter on the plain form, and against tensors listed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import work
from bench.work import Passes


def counted(forward: Callable[..., Tensor], *shapes: tuple[int, ...]) -> tuple[int, int]:
    """torch's count of the forward pass, and of the gradients of all inputs."""
    leaves = [torch.randn(shape).requires_grad_() for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        result = forward(*leaves)
    before = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        result.sum().backward()
    return before, counter.get_total_flops()


def one_step(x: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Mamba-2's state, moved by x B^T and read by C: x (T, P, 1), b (T, 1, N), c (T, N, 1)."""
    return (x @ b) @ c


PLAIN = {
    # Sequences of one token have one pair each, so that the matrix of scores holds nothing that is masked.
    "attention": (
        work.attention([1] * 7, 3, 5, 11),
        lambda q, k, v: F.silu(q @ k.mT) @ v,
        [(7, 3, 1, 5), (7, 3, 1, 5), (7, 3, 1, 11)],
    ),
    "linear_cross_entropy": (
        work.linear_cross_entropy(6, 50, 8),
        lambda x, w: F.cross_entropy(x @ w.T, torch.arange(6)),
        [(6, 8), (50, 8)],
    ),
    "linear_silu": (work.linear_silu(6, 8, 50), lambda x, w: F.silu(x @ w.T), [(6, 8), (50, 8)]),
    "causal_conv1d": (
        work.causal_conv1d(9, 5, 4),
        lambda x, w: F.conv1d(x, w, groups=5),
        [(1, 5, 9 + 3), (5, 1, 4)],
    ),
    "ssd_scan": (work.ssd_scan(7, 12, 5), one_step, [(7, 12, 1), (7, 1, 5), (7, 5, 1)]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_operations_are_those_that_torch_counts(name):
    model, forward, shapes = PLAIN[name]
    of_forward, of_backward = counted(forward, *shapes)
    assert model.forward.flops == of_forward
    if name != "causal_conv1d":  # torch counts its weight's gradient as if the channels mixed
        assert model.backward.flops == of_backward


def test_pairs_are_those_of_a_mask():
    lengths = [5, 0, 1, 9]
    assert work.pairs(lengths) == sum(int(torch.ones(n, n).tril().sum()) for n in lengths)
    whole = work.attention(lengths, 2, 4, 8)
    assert whole.forward.flops == work.pairs(lengths) * work.attention([1], 2, 4, 8).forward.flops
    assert whole.again.flops == 2 * work.pairs(lengths) * 2 * 4, "one product of queries and keys"


def size(*shapes: tuple[int, ...], element: int = 2) -> int:
    return sum(element * torch.Size(shape).numel() for shape in shapes)


ROWS, WIDTH = (6, 8), (8,)
U, BC, HEADS, VALUES = (6, 8), (6, 5), (6, 2, 4), (6, 2, 3)
# name: (the model, tensors forward, tensors backward)
LISTED: dict[str, tuple[Passes, list[tuple[int, ...]], list[tuple[int, ...]]]] = {
    # x, y; x, dy, dx
    "layer_norm": (work.row_wise("layer_norm", *ROWS, 2), [ROWS] * 2, [ROWS] * 3),
    "rms_norm": (work.row_wise("rms_norm", *ROWS, 2), [ROWS] * 2, [ROWS] * 3),
    # x, residual, y, sum; sum, dy, dsum, dx
    "rms_norm_sum": (work.row_wise("rms_norm_sum", *ROWS, 2), [ROWS] * 4, [ROWS] * 4),
    # half the bytes of a float32 number: x of those, y; x, dx, dy
    "rms_norm_mixed": (work.row_wise("rms_norm_mixed", *ROWS, 2), [ROWS] * 3, [ROWS] * 5),
    # x, y, residual, sum; dy, dx, and the sum with two gradients
    "rms_norm_sum_mixed": (work.row_wise("rms_norm_sum_mixed", *ROWS, 2), [ROWS] * 6, [ROWS] * 8),
    # x, gate, y; x, gate, dy, dx, dgate
    "norm_gate": (work.row_wise("norm_gate", *ROWS, 2), [ROWS] * 3, [ROWS] * 5),
    "swiglu": (work.row_wise("swiglu", *ROWS, 2), [ROWS] * 3, [ROWS] * 5),
    # q, k, rotated; their gradients
    "rope": (work.row_wise("rope", *ROWS, 2), [ROWS] * 4, [ROWS] * 4),
    # q, k, v, out; q, k, v, out, dout, dq, dk, dv
    "attention": (
        work.attention([2, 4], 2, 4, 3, 2),
        [HEADS, HEADS, VALUES, VALUES],
        [HEADS, HEADS, VALUES, VALUES, VALUES, HEADS, HEADS, VALUES],
    ),
    # hidden, weight; their gradients
    "linear_cross_entropy": (work.linear_cross_entropy(6, 50, 8, 2), [ROWS, (50, 8)], [ROWS, (50, 8)]),
    "linear_rank": (work.linear_rank(6, 50, 8, 2), [ROWS, (50, 8)], []),
    # x, weight, y; z written and read, x, weight, dy, dx, dweight
    "linear_silu": (
        work.linear_silu(6, 8, 50, 2),
        [ROWS, (50, 8), (6, 50)],
        [(6, 50), (6, 50), ROWS, (50, 8), (6, 50), ROWS, (50, 8)],
    ),
    # u, delta, z, y, B, C; u, delta, z, dy, du, ddelta, dz, B, C, dB, dC
    "selective_scan": (work.selective_scan(6, 8, 5, 2), [U] * 4 + [BC] * 2, [U] * 7 + [BC] * 4),
    # x, z, y, B, C; x, z, dy, dx, dz, y before the gate twice, B, C, dB, dC
    "ssd_scan": (work.ssd_scan(6, 8, 5, 2), [U] * 3 + [BC] * 2, [U] * 7 + [BC] * 4),
    # x, y; x, dy, dx
    "causal_conv1d": (work.causal_conv1d(6, 8, 4, 2), [U] * 2, [U] * 3),
}


@pytest.mark.parametrize("name", LISTED)
def test_bytes_are_those_of_the_tensors_moved(name):
    model, forward, backward = LISTED[name]
    assert model.forward.bytes == size(*forward) and model.backward.bytes == size(*backward)
    assert model.both.bytes == size(*forward, *backward)


def test_bags_read_a_row_and_an_id_each():
    assert work.embedding_bag_mean(3, 7, 8, 2).forward.bytes == size((7, 8), (3, 8)) + size((7,), element=8)


def test_a_scan_s_operations_counted_by_hand():
    exponential = 1 + 4 + 10  # delta A, the range's reduction, a polynomial of degree 5
    forward = exponential + 2 + 1 + 2  # decay h + x B, where x B is a product of its own; y += h C
    backward = exponential + 3 + 8 + 6  # the state again; eight products, six of them added to a gradient
    model = work.selective_scan(1, 1, 1)
    assert (model.forward.flops, model.backward.flops) == (forward, backward)
