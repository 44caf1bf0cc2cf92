"""The least work of each operator, from its shapes alone: floating-point operations, and bytes to and from memory.

A multiply-add is two operations. Each tensor that the definition needs counts once a direction, in its own dtype; what
is as small as a weight of a norm, or as offsets, is left out. What an implementation does beyond that is its own:
`bench/gpu_cases` says it for each launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SCAN_FORWARD, SCAN_BACKWARD = 15 + 5, 15 + 3 + 14
"""FLOPs of Mamba-1's scan a token, channel and state. exp(delta A) counts 15 in either direction: a product, 4 to
reduce its range, 10 for a polynomial of degree 5. Forward then moves the state and adds to y; backward moves it again
and forms eight products, six of them added to a gradient."""


@dataclass(frozen=True)
class Least:
    """Operations and bytes, which add up."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Least) -> Least:
        return Least(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Passes:
    """Both directions of an operator.

    again: what a backward pass that keeps nothing as large as the scores computes a second time.
    """

    forward: Least
    backward: Least = Least()
    again: Least = Least()

    @property
    def both(self) -> Least:
        """Forward and backward, with everything kept between them."""
        return self.forward + self.backward


def pairs(lengths: Sequence[int]) -> int:
    """Pairs (i, j <= i) of tokens of one sequence."""
    return sum(n * (n + 1) // 2 for n in lengths)


def attention(
    lengths: Sequence[int], heads: int, width: int, value_width: int | None = None, element: int = 4
) -> Passes:
    """Causal attention with heads of `width` and values of `value_width` (None: the same), whatever is between scores
    and weights; `element` bytes a number.

    Products a pair: scores and the result; then the gradients of weights, queries, keys and values. Bytes: q, k, v read
    and the result written; then those and its gradient read, and three gradients written.
    """
    value_width = width if value_width is None else value_width
    product, value_product = (2.0 * pairs(lengths) * heads * n for n in (width, value_width))
    rows = float(element * sum(lengths) * heads)
    return Passes(
        Least(product + value_product, rows * 2 * (width + value_width)),
        Least(2 * product + 2 * value_product, rows * 4 * (width + value_width)),
        again=Least(product),
    )


ROW_WISE = {
    "layer_norm": (2, 3),
    "rms_norm": (2, 3),
    "rms_norm_sum": (4, 4),  # x, residual, y, sum; the sum, two gradients read, one written
    "rms_norm_mixed": (1, 1),
    "rms_norm_sum_mixed": (2, 2),
    "norm_gate": (3, 5),
    "swiglu": (3, 5),
    "rope": (4, 4),  # q and k in and out; their gradients in and out
}
"""Of the operators that pass over their rows once: tensors (rows, width) read or written forward, and backward."""

STREAM = {
    "rms_norm_mixed": (1, 2),  # x beside y; x and its gradient beside y's
    "rms_norm_sum_mixed": (2, 3),  # residual and sum beside x and y; the sum, two gradients of it beside those of x, y
}
"""Further ones in float32, of those that are not in ROW_WISE: the residual stream of a block that computes in bf16."""


def row_wise(operator: str, rows: int, width: int, element: int = 4) -> Passes:
    """Bytes of one of ROW_WISE; its arithmetic is no bound anywhere."""
    counts = zip(ROW_WISE[operator], STREAM.get(operator, (0, 0)), strict=True)
    return Passes(*(Least(bytes=float((element * n + 4 * wide) * rows * width)) for n, wide in counts))


def linear_cross_entropy(tokens: int, items: int, width: int, element: int = 4) -> Passes:
    """Logits once and two gradients; vectors and table read, their gradients written."""
    product, moved = 2.0 * tokens * items * width, float(element * (items + tokens) * width)
    return Passes(Least(product, moved), Least(2 * product, moved))


def linear_rank(tokens: int, items: int, width: int, element: int = 4) -> Passes:
    """The scores; vectors and table read."""
    return Passes(Least(2.0 * tokens * items * width, float(element * (items + tokens) * width)))


def linear_silu(rows: int, width: int, columns: int, element: int = 4) -> Passes:
    """A projection and two products for its gradients. Bytes: x, the weight and the result, and for a gradient the
    input of SiLU too; then x, the weight, that input and the result's gradient read, two gradients written."""
    product, inputs, result = 2.0 * rows * width * columns, (rows + columns) * width, rows * columns
    return Passes(
        Least(product, float(element * (inputs + result))),
        Least(2 * product, float(element * (2 * inputs + 3 * result))),
    )


def embedding_bag_mean(bags: int, ids: int, width: int, element: int = 4) -> Passes:
    """A row an id and its id, read; a row a bag, written."""
    return Passes(Least(1.0 * ids * width, float(element * width * (ids + bags) + 8 * ids)))


def selective_scan(tokens: int, channels: int, states: int, element: int = 4) -> Passes:
    """u, delta, z, B and C read, y written; then those and y's gradient read, five gradients written."""
    return Passes(
        Least(SCAN_FORWARD * tokens * channels * states, float(element * tokens * (4 * channels + 2 * states))),
        Least(SCAN_BACKWARD * tokens * channels * states, float(element * tokens * (7 * channels + 4 * states))),
    )


def ssd_scan(tokens: int, channels: int, states: int, element: int = 4) -> Passes:
    """A state moved and read, of `channels` = heads x head width, with one B and C for all heads.

    Bytes: x, z, B and C read, y written; then those and y's gradient read, four gradients written, and y before its
    gate written and read.
    """
    product = 4.0 * tokens * channels * states
    return Passes(
        Least(product, float(element * tokens * (3 * channels + 2 * states))),
        Least(2 * product, float(element * tokens * (7 * channels + 4 * states))),
    )


def causal_conv1d(tokens: int, channels: int, taps: int, element: int = 4) -> Passes:
    """x read and y written; then x and y's gradient read, x's written."""
    product, rows = 2.0 * tokens * channels * taps, float(element * tokens * channels)
    return Passes(Least(product, 2 * rows), Least(2 * product, 3 * rows))
