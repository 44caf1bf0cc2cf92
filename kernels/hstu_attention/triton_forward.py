"""HSTU attention's forward pass.

A program owns BLOCK queries of one head of one sequence, longest sequences and last tiles first, and loops over the
keys up to its diagonal, STREAM at a time. q and the fp32 accumulators (BLOCK x Dv) stay on the chip, tiles of k and v
arrive by asynchronous copies, and the scores exist only as one BLOCK x STREAM tile in registers. SiLU needs no
statistics, so nothing is rescaled: each tile is a product, bias, SiLU, and a product. Tiles that no query sees, past
the diagonal or before the window, are never visited; half of the work on the diagonal tile is masked. docs/gpu.md says
what bounds it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import on_device_of, programs, take_descriptors, tuned
from .triton_bias import (
    add_half_bias,
    history_of,
    load_rows,
    load_times,
    locate,
    seen_keys,
    sees,
    silu,
    store_rows,
)
from .triton_launch import (
    UNSPECIALISED,
    block_rows,
    by_descriptors,
    common_arguments,
    configs,
    shared_memory,
    tiles_are_whole,
)

if TYPE_CHECKING:
    from .settings import Settings


@triton.jit
def _attend(
    result,
    queries,
    rows,
    times,
    k_tiles,
    v_tiles,
    row,
    k_column,
    v_column,
    k_base,
    v_base,
    k_row,
    v_row,
    position_bias,
    time_bias,
    bucket_ends,
    timestamps,
    first,
    last,
    length,
    history,
    prefix,
    window,
    max_len,
    last_bucket,
    half_scale,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    HAS_POSITION: tl.constexpr,
    HAS_TIME: tl.constexpr,
    HAS_LIMITS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LOADS: tl.constexpr,
    STREAM: tl.constexpr,
):
    """`result` with the keys first .. last - 1; IS_WHOLE: all of them exist and every query sees them all.

    Keys and values come by LOADS; key 0 and its value are at row `row` of the descriptors, from those columns on.
    """
    for other in tl.range(first, last, STREAM, warp_specialize=LOADS == "specialised"):
        columns = other + tl.arange(0, STREAM)
        if LOADS == "pointers":
            keys = load_rows(k_base, k_row, columns, length, WIDTH, PADDED, IS_WHOLE)
        else:
            keys = k_tiles.load([row + other, k_column])
        half = tl.dot(queries, tl.trans(keys), input_precision="ieee") * half_scale
        distance = rows[:, None] - columns[None, :]
        other_times = load_times(timestamps, columns, length, IS_WHOLE) if HAS_TIME else columns
        gap = times[:, None] - other_times[None, :]
        half = add_half_bias(
            half,
            distance,
            position_bias,
            time_bias,
            bucket_ends,
            last_bucket,
            max_len,
            gap,
            HAS_POSITION,
            HAS_TIME,
            HAS_LIMITS,
            IS_WHOLE,
        )
        weights = silu(half, queries.dtype == tl.float32)
        if HAS_LIMITS:
            weights = tl.where(sees(rows[:, None], columns[None, :], history, prefix, window), weights, 0.0)
        elif not IS_WHOLE:
            weights = tl.where(distance >= 0, weights, 0.0)
        if LOADS == "pointers":
            values = load_rows(v_base, v_row, columns, length, VALUE_WIDTH, VALUE_PADDED, IS_WHOLE)
        else:
            values = v_tiles.load([row + other, v_column])
        result = tl.dot(weights.to(values.dtype), values, result, input_precision="ieee")
    return result


@triton.jit(do_not_specialize=UNSPECIALISED)
def hstu_attention_forward(
    out,
    q,
    k,
    v,
    offsets,
    order,
    first_tile,
    position_bias,
    time_bias,
    bucket_ends,
    timestamps,
    num_targets,
    sequences,
    heads,
    max_len,
    last_bucket,
    window,
    contextual,
    scale,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    HAS_POSITION: tl.constexpr,
    HAS_TIME: tl.constexpr,
    HAS_LIMITS: tl.constexpr,
    BLOCK: tl.constexpr,
    STREAM: tl.constexpr,
    LOADS: tl.constexpr = "pointers",
):
    """out (T, H, VALUE_WIDTH), contiguous; the other arrays as the operator has them, by strides of rows and heads.

    LOADS is "pointers": a thread copies 16 bytes at a time; "descriptors": whole tiles before the diagonal come by
    tensor descriptors of all tokens, made once; or "specialised": all tiles come so, by descriptors of one sequence,
    which end where it ends, and warps of their own ask for them. A program then takes one item, because a descriptor in
    use must not be made anew, and there is one loop, because warps are specialised around one.
    """
    SPECIALISED: tl.constexpr = LOADS == "specialised"
    # By pointers, two loops would spill with heads of 256.
    IS_SPLIT: tl.constexpr = not HAS_LIMITS and not SPECIALISED and (VALUE_PADDED <= 128 or LOADS == "descriptors")
    if LOADS == "descriptors":
        tokens = tl.load(offsets + sequences).to(tl.int32)
        k_tiles = tl.make_tensor_descriptor(k, [tokens, (heads - 1) * k_head + WIDTH], [k_row, 1], [STREAM, WIDTH])
        v_tiles = tl.make_tensor_descriptor(
            v, [tokens, (heads - 1) * v_head + VALUE_WIDTH], [v_row, 1], [STREAM, VALUE_WIDTH]
        )
    total = tl.load(first_tile + sequences).to(tl.int32) * heads
    for work in range(tl.program_id(0), total, tl.num_programs(0)):
        start, length, begin, sequence = locate(
            order, first_tile, offsets, work // heads, sequences, BLOCK, True, SPECIALISED
        )
        head = work % heads
        rows = begin + tl.arange(0, BLOCK)
        k_base = k + start * k_row + head * k_head
        v_base = v + start * v_row + head * v_head
        q_base = q + start * q_row + head * q_head
        if SPECIALISED:
            q_tiles = tl.make_tensor_descriptor(q_base, [length, WIDTH], [q_row, 1], [BLOCK, WIDTH])
            keys_of = tl.make_tensor_descriptor(k_base, [length, WIDTH], [k_row, 1], [STREAM, WIDTH])
            values_of = tl.make_tensor_descriptor(v_base, [length, VALUE_WIDTH], [v_row, 1], [STREAM, VALUE_WIDTH])
            queries = q_tiles.load([begin, 0])
        else:
            keys_of, values_of = k_base, v_base
            queries = load_rows(q_base, q_row, rows, length, WIDTH, PADDED)
        own_timestamps = timestamps + start if HAS_TIME else timestamps
        times = load_times(own_timestamps, rows, length) if HAS_TIME else rows
        result = tl.zeros([BLOCK, VALUE_PADDED], tl.float32)
        first = 0
        last = tl.minimum(begin + BLOCK, length)
        history = length
        prefix = 0
        if HAS_LIMITS:
            history = history_of(num_targets, sequence, length)
            prefix = tl.minimum(contextual, history)
            first, last = seen_keys(begin, length, history, prefix, window, BLOCK)
            first = first // STREAM * STREAM
        if IS_SPLIT:
            result = _attend(
                result, queries, tl.minimum(rows, length - 1), times,
                k_tiles if LOADS == "descriptors" else k, v_tiles if LOADS == "descriptors" else v,
                start.to(tl.int32), head * k_head, head * v_head, k_base, v_base, k_row, v_row,
                position_bias, time_bias, bucket_ends, own_timestamps, 0, begin, length,
                history, prefix, window, max_len, last_bucket, 0.5 * scale,
                WIDTH, VALUE_WIDTH, PADDED, VALUE_PADDED, HAS_POSITION, HAS_TIME, False, True, LOADS, STREAM,
            )  # fmt: skip
            first = begin
        result = _attend(
            result, queries, rows, times,
            keys_of, values_of, 0, 0, 0, k_base, v_base, k_row, v_row,
            position_bias, time_bias, bucket_ends, own_timestamps, first, last, length,
            history, prefix, window, max_len, last_bucket, 0.5 * scale,
            WIDTH, VALUE_WIDTH, PADDED, VALUE_PADDED, HAS_POSITION, HAS_TIME, HAS_LIMITS, False,
            LOADS if SPECIALISED else "pointers", STREAM,
        )  # fmt: skip
        out_row = heads * VALUE_WIDTH
        base = out + start * out_row + head * VALUE_WIDTH
        store_rows(base, out_row, rows, length, result / max_len, VALUE_WIDTH, VALUE_PADDED)


def forward_configs(
    block: int, widest: int, dtype: torch.dtype, is_biased: bool, has_descriptors: bool = False
) -> list[triton.Config]:
    """The committed configurations for `block` queries of heads padded to `widest` columns: none of them spills."""
    if dtype == torch.float32:
        return configs([(32 if widest <= 64 else 16, 4, 1)])
    if widest > 256:
        return configs([(16, 4, 1)])
    if block == 64:
        if widest == 256:
            return configs([(16, 8, 2), (32, 8, 2)])
        return configs([(32, 4, 2), (32, 4, 3)] + ([] if is_biased else [(64, 4, 2)]))
    if widest == 256:
        found = configs([(32, 8, 2)] if is_biased else [(64, 8, 2), (32, 8, 2), (32, 8, 3)])
        return found + (by_descriptors(32, 2, (32, 2)) if has_descriptors and not is_biased else [])
    if widest == 128 and is_biased:
        return configs([(32, 8, 2), (32, 8, 3)]) + (by_descriptors(32, 2) if has_descriptors else [])
    found = configs([(64, 8, 2), (64, 8, 3), (32, 8, 3)])
    return found + (by_descriptors(64, 3, (64, 3)) if has_descriptors and widest == 128 else [])


@cache
def _kernel(block: int, widest: int, dtype: torch.dtype, is_biased: bool, has_descriptors: bool) -> Any:
    key = ["WIDTH", "VALUE_WIDTH", "HAS_POSITION", "HAS_TIME", "HAS_LIMITS"]
    listed = forward_configs(block, widest, dtype, is_biased, has_descriptors)
    return tuned(listed, key, "q")(hstu_attention_forward)


def forward(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> Tensor:
    """The operator's output (T, H, Dv)."""
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    widest = max(block_of(q.shape[2]), block_of(v.shape[2]))
    block = block_rows(widest, settings.max_len, q.dtype, shared_memory(q.device))
    arguments = common_arguments(q, v, settings, block)
    is_biased = arguments["HAS_POSITION"] or arguments["HAS_TIME"]
    has_descriptors = tiles_are_whole(q, v, arguments) and take_descriptors(q, k, v)
    kernel = _kernel(block, widest, q.dtype, is_biased, has_descriptors)
    items = (q.shape[0] // block + arguments["sequences"]) * q.shape[1]
    persistent = programs(q, 1 if widest > 128 else 2)
    with on_device_of(q, makes_descriptors=has_descriptors):
        kernel[lambda meta: (items if meta.get("LOADS") == "specialised" else persistent,)](
            *(out, q, k, v),
            **arguments,
            **dict(zip(("q_row", "q_head"), q.stride(), strict=False)),
            **dict(zip(("k_row", "k_head"), k.stride(), strict=False)),
            **dict(zip(("v_row", "v_head"), v.stride(), strict=False)),
            BLOCK=block,
        )
    return out
