"""The gradient of the catalogue, from logits that are recomputed.

A program owns ROWS items, with their vectors in shared memory and the accumulators of their gradient (ROWS x D floats)
in registers, and walks over the tokens, COLUMNS at a time: the logits again, the softmax by the known logsumexp, and a
product with the tokens. Every row of the gradient is written once, in the weight's dtype and times the incoming
gradient: no atomics, and no second pass over (V, D). Tokens are sorted by target, so that only the tiles that hold
targets of the program's items, mostly none or one, need the comparison that subtracts 1; tokens that do not count are
left out. A tile of a catalogue with fewer tiles than the GPU has multiprocessors is shared by several programs, each
with a part of the tokens, whose sums are added in order. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_catalogue import EXACT_TILE, add_product
from ..triton_tools import on_device_of, programs, take_descriptors, tuned
from .operator import PADDED

_LOG2E = tl.constexpr(1.4426950408889634)
_STEP = 64  # items of the smallest bf16 tile: the first token of a tile is looked up at multiples of this
_STEP_EXACT = 16  # the same for fp32


def _config(rows: int, columns: int, warps: int, stages: int, **constants: str) -> triton.Config:
    return triton.Config({"ROWS": rows, "COLUMNS": columns, **constants}, num_warps=warps, num_stages=stages)


def configs(
    block_d: int, dtype: torch.dtype, has_descriptors: bool = False, is_plain: bool = True
) -> list[triton.Config]:
    """What the autotuner chooses from, for vectors of block_d; `is_plain`: without bias and ids."""
    if dtype == torch.float32:
        return [_config(*EXACT_TILE, 4, 1)]
    found = {
        128: [_config(128, 128, 8, 2), _config(128, 64, 8, 3), _config(64, 64, 4, 3)],
        256: [_config(128, 64, 8, 2), _config(64, 64, 4, 2)],
        512: [_config(64, 32, 8, 2)],
    }[max(block_d, 128)]
    if has_descriptors and block_d == 128:
        found = [*found, _config(128, 128, 8, 2, LOADS="descriptors")]
        # A vector of as many numbers as four warps have threads would be copied by the warps that copy tiles.
        found += [_config(128, 64, 4, 3, LOADS="specialised")] if is_plain else []
    elif has_descriptors and block_d == 512:
        found = [*found, _config(64, 32, 8, 2, LOADS="descriptors")]
    return found


def weight_gradient(
    states: Tensor,
    lse: Tensor,
    wanted: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
    scale: Tensor,
) -> Tensor:
    """`scale` (float32 scalar) times the gradient of the summed loss with respect to weight (V, d), in its dtype.

    states, wanted, count: see `triton_tokens.Tokens`. lse: float32 (P,), inf beyond `count`.
    """
    items, width = weight.shape
    places, block_d = states.shape
    wanted_ids = None if ids is None else ids.index_select(0, wanted.clamp(max=items - 1))
    step = _STEP_EXACT if weight.dtype == torch.float32 else _STEP
    starts = torch.arange(0, -(-items // PADDED) * PADDED + step, step, dtype=torch.int32, device=weight.device)
    begins = torch.searchsorted(wanted, starts)
    parts = max(1, min(programs(weight) * PADDED // max(items, PADDED), places // PADDED))
    gradient = weight.new_empty(parts, items, width, dtype=weight.dtype if parts == 1 else torch.float32)
    has_descriptors = weight.dtype == torch.bfloat16 and take_descriptors(weight)
    kernel = _kernel(block_d, weight.dtype, has_descriptors, bias is None and ids is None)
    with on_device_of(weight, makes_descriptors=has_descriptors):
        kernel[lambda meta: (triton.cdiv(items, meta["ROWS"]), parts)](
            gradient, states, lse, wanted, wanted_ids, count, begins, scale,
            weight, bias, ids,
            items, width, weight.stride(0), places.bit_length(),
            HAS_BIAS=bias is not None, HAS_IDS=ids is not None, EXACT=weight.dtype == torch.float32,
            STEP=step, BLOCK_D=block_d,
        )  # fmt: skip
    return gradient[0] if parts == 1 else gradient.sum(0).to(weight.dtype)


@cache
def _kernel(*sizes: Any) -> Callable[..., Any]:
    return tuned(configs(*sizes), key=["size"])(gradient_of_items)


@triton.jit
def gradient_of_items(
    gradient, states, lse, wanted, wanted_ids, count, begins, scale, weight, bias, ids,
    items, width, weight_row, size,
    HAS_BIAS: tl.constexpr, HAS_IDS: tl.constexpr, EXACT: tl.constexpr, STEP: tl.constexpr,
    BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LOADS: tl.constexpr = "pointers",
):  # fmt: skip
    """`size` is the class of problems for which the autotuner chooses a configuration; LOADS as in the forward pass."""
    SPECIALISED: tl.constexpr = LOADS == "specialised"
    item = tl.program_id(0) * ROWS
    inner = tl.arange(0, ROWS)
    rows = item + inner
    depth = tl.arange(0, BLOCK_D)
    is_item = rows < items
    mask = is_item[:, None] & (depth < width)[None, :]
    base = weight + item * tl.cast(weight_row, tl.int64)
    if SPECIALISED:
        own = tl.make_tensor_descriptor(weight, [items, width], [weight_row, 1], [ROWS, BLOCK_D]).load([item, 0])
    else:
        own = tl.load(base + (inner * weight_row)[:, None] + depth[None, :], mask=mask, other=0.0)
    own_bias, own_ids = rows, rows
    if HAS_BIAS:
        own_bias = tl.load(bias + rows, mask=is_item, other=0.0)
    if HAS_IDS:
        own_ids = tl.load(ids + rows, mask=is_item, other=0)

    # This program's tiles of tokens [low, high), and of these [first, last) with targets among its items.
    tiles = (tl.load(count).to(tl.int32) + COLUMNS - 1) // COLUMNS
    low = tiles * tl.program_id(1) // tl.num_programs(1)
    high = tiles * (tl.program_id(1) + 1) // tl.num_programs(1)
    begin = tl.load(begins + tl.program_id(0) * (ROWS // STEP)).to(tl.int32)
    end = tl.load(begins + (tl.program_id(0) + 1) * (ROWS // STEP)).to(tl.int32)
    first = tl.minimum(tl.maximum(begin // COLUMNS, low), high)
    last = tl.where(end > begin, (end + COLUMNS - 1) // COLUMNS, first)
    last = tl.minimum(tl.maximum(last, first), high)

    NARROW: tl.constexpr = 16  # narrow, because the accumulators leave few registers for what is seldom needed
    acc = tl.zeros((ROWS, BLOCK_D), tl.float32)
    tiles = states
    if LOADS != "pointers":
        tiles = tl.make_tensor_descriptor(
            states, [tl.maximum(high, 1) * COLUMNS, BLOCK_D], [BLOCK_D, 1], [COLUMNS, BLOCK_D]
        )
    if SPECIALISED:
        for i in tl.range(low, high, warp_specialize=True):
            acc = _add_tile(
                acc, own, own_bias, own_ids, rows, i * COLUMNS, tiles, states, lse, wanted, wanted_ids,
                HAS_BIAS, HAS_IDS, EXACT, True, True, BLOCK_D, COLUMNS,
            )  # fmt: skip
    else:
        for i in range(low, high - (last - first)):
            start = tl.where(i < first, i, i + (last - first)) * COLUMNS
            acc = _add_tile(
                acc, own, own_bias, own_ids, rows, start, tiles, states, lse, wanted, wanted_ids,
                HAS_BIAS, HAS_IDS, EXACT, False, LOADS != "pointers", BLOCK_D, COLUMNS,
            )  # fmt: skip
        for start in range(first * COLUMNS, last * COLUMNS, NARROW):
            acc = _add_tile(
                acc, own, own_bias, own_ids, rows, start, tiles, states, lse, wanted, wanted_ids,
                HAS_BIAS, HAS_IDS, EXACT, True, False, BLOCK_D, NARROW,
            )  # fmt: skip
    base = gradient + (tl.cast(tl.program_id(1), tl.int64) * items + item) * width
    total = (acc * tl.load(scale)).to(gradient.dtype.element_ty)
    tl.store(base + (inner * width)[:, None] + depth[None, :], total, mask=mask)


@triton.jit
def _add_tile(
    acc, own, own_bias, own_ids, rows, start, tiles, states, lse, wanted, wanted_ids,
    HAS_BIAS: tl.constexpr, HAS_IDS: tl.constexpr, EXACT: tl.constexpr, HOLDS_TARGETS: tl.constexpr,
    BY_DESCRIPTOR: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """acc + (p - 1[target]) of COLUMNS tokens times their states; padding has lse = inf, so p = 0."""
    columns = tl.arange(0, COLUMNS)
    depth = tl.arange(0, BLOCK_D)
    if BY_DESCRIPTOR:
        state = tiles.load([start, 0])
    else:
        state = tl.load(states + tl.cast(start, tl.int64) * BLOCK_D + columns[:, None] * BLOCK_D + depth[None, :])
    logsum = tl.load(lse + start + columns)
    scores = add_product(own, tl.trans(state), tl.zeros((own.shape[0], COLUMNS), tl.float32))
    if HAS_BIAS:
        scores += own_bias[:, None]
    if HAS_IDS or HOLDS_TARGETS:
        is_target = tl.load(wanted + start + columns)[None, :] == rows[:, None]
    if HAS_IDS:
        is_same = tl.load(wanted_ids + start + columns)[None, :] == own_ids[:, None]
        scores = tl.where(is_same & (is_target == 0), float("-inf"), scores)
    if EXACT:
        errors = tl.exp2((scores - logsum[None, :]) * _LOG2E)
    else:
        errors = tl.exp2(scores * _LOG2E - (logsum * _LOG2E)[None, :])
    if HOLDS_TARGETS:
        errors -= tl.where(is_target, 1.0, 0.0)
    return add_product(errors.to(state.dtype), state, acc)
