"""HSTU attention's gradients of q, k and v: one kernel, launched over tiles of queries for dq and over tiles of keys
for dk and dv. The scores are recomputed from q and k.

A program owns BLOCK rows of one head of one sequence, longest sequences first, and loops over the rows of the other
side, STREAM at a time: keys up to its diagonal, or queries from its diagonal on. Its own two tiles (q and grad, or k
and v) stay in shared memory and its fp32 accumulators in registers, and the tiles of the other side arrive by
asynchronous copies. Its own rows are the first operand of every product, so that the weights go from registers into the
second product. No two programs write one row, so there are no atomics. Above a width of 128 the accumulators of dk and
dv together would need every register of a multiprocessor, so they are two launches. docs/gpu.md says what bounds them.
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
    last_query,
    load_rows,
    load_times,
    locate,
    seen_keys,
    sees,
    silu_and_gradient,
    store_input_gradients,
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


@triton.jit(do_not_specialize=UNSPECIALISED)
def hstu_attention_backward(
    d_own,
    d_own_values,
    own,
    own_values,
    other,
    other_values,
    own_inputs,
    own_values_inputs,
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
    d_own_row,
    d_own_head,
    d_own_values_row,
    d_own_values_head,
    own_row,
    own_head,
    own_values_row,
    own_values_head,
    other_row,
    other_head,
    other_values_row,
    other_values_head,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    HAS_POSITION: tl.constexpr,
    HAS_TIME: tl.constexpr,
    HAS_LIMITS: tl.constexpr,
    OF_QUERIES: tl.constexpr,
    WITH_OWN: tl.constexpr,
    WITH_VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    STREAM: tl.constexpr,
    LOADS: tl.constexpr = "pointers",
):
    """Gradients of the own side's rows (T, H, width), with `own_inputs` and `own_values_inputs`, of the same strides as
    d_own and d_own_values, those of what SiLU was applied to.

    OF_QUERIES: own is q, own_values is grad, other is k, other_values is v; d_own is dq. Else own is k, own_values is
    v, other is q, other_values is grad; d_own is dk (WITH_OWN) and d_own_values is dv (WITH_VALUES).
    LOADS as in the forward pass, but "descriptors" too are of one sequence, of which a program takes one item.
    """
    SPECIALISED: tl.constexpr = LOADS == "specialised"
    total = tl.load(first_tile + sequences).to(tl.int32) * heads
    for work in range(tl.program_id(0), total, tl.num_programs(0)):
        start, length, begin, sequence = locate(
            order, first_tile, offsets, work // heads, sequences, BLOCK, OF_QUERIES, SPECIALISED
        )
        head = work % heads
        rows = begin + tl.arange(0, BLOCK)
        other_base = other + start * other_row + head * other_head
        other_values_base = other_values + start * other_values_row + head * other_values_head
        base = own + start * own_row + head * own_head
        if LOADS != "pointers":
            tiles = tl.make_tensor_descriptor(other_base, [length, WIDTH], [other_row, 1], [STREAM, WIDTH])
            values_tiles = tl.make_tensor_descriptor(
                other_values_base, [length, VALUE_WIDTH], [other_values_row, 1], [STREAM, VALUE_WIDTH]
            )
        if SPECIALISED:
            mine = tl.make_tensor_descriptor(base, [length, WIDTH], [own_row, 1], [BLOCK, WIDTH]).load([begin, 0])
        else:
            mine = load_rows(base, own_row, rows, length, WIDTH, PADDED)
        times = load_times(timestamps + start, rows, length) if HAS_TIME else rows
        if WITH_OWN:
            base = own_values + start * own_values_row + head * own_values_head
            if SPECIALISED:
                mine_values = tl.make_tensor_descriptor(
                    base, [length, VALUE_WIDTH], [own_values_row, 1], [BLOCK, VALUE_WIDTH]
                ).load([begin, 0])
            else:
                mine_values = load_rows(base, own_values_row, rows, length, VALUE_WIDTH, VALUE_PADDED)
            result = tl.zeros([BLOCK, PADDED], tl.float32)
        if WITH_VALUES:
            result_values = tl.zeros([BLOCK, VALUE_PADDED], tl.float32)
        first = 0 if OF_QUERIES else begin
        last = tl.minimum(begin + BLOCK, length) if OF_QUERIES else length
        if HAS_LIMITS:
            history = history_of(num_targets, sequence, length)
            prefix = tl.minimum(contextual, history)
            if OF_QUERIES:
                first, last = seen_keys(begin, length, history, prefix, window, BLOCK)
                first = first // STREAM * STREAM
            else:
                # The prefix's queries come first, in whole tiles, then those from `begin` on.
                before = (prefix + STREAM - 1) // STREAM * STREAM
                skipped = tl.maximum(begin - before, 0)
                first = 0
                last = last_query(begin, length, history, prefix, window, BLOCK) - skipped
        for at in tl.range(first, last, STREAM, warp_specialize=SPECIALISED):
            columns = at + tl.arange(0, STREAM)
            if HAS_LIMITS and not OF_QUERIES:
                columns += tl.where(at < before, 0, skipped)
            if LOADS == "pointers":
                theirs = load_rows(other_base, other_row, columns, length, WIDTH, PADDED)
            else:
                theirs = tiles.load([at, 0])
            half = tl.dot(mine, tl.trans(theirs), input_precision="ieee") * (0.5 * scale)
            if LOADS == "pointers":
                theirs_values = load_rows(
                    other_values_base, other_values_row, columns, length, VALUE_WIDTH, VALUE_PADDED
                )
            else:
                theirs_values = values_tiles.load([at, 0])
            other_times = load_times(timestamps + start, columns, length) if HAS_TIME else columns
            distance = rows[:, None] - columns[None, :]
            if not OF_QUERIES:
                distance = -distance
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
                False,
            )
            counts = distance >= 0
            if HAS_LIMITS:
                if OF_QUERIES:
                    counts = sees(rows[:, None], columns[None, :], history, prefix, window)
                else:
                    counts = sees(columns[None, :], rows[:, None], history, prefix, window)
            weights, gradient = silu_and_gradient(half, mine.dtype == tl.float32)
            if WITH_VALUES:
                weights = tl.where(counts, weights, 0.0).to(theirs_values.dtype)
                result_values = tl.dot(weights, theirs_values, result_values, input_precision="ieee")
            if WITH_OWN:
                d_scores = tl.dot(mine_values, tl.trans(theirs_values), input_precision="ieee")
                d_scores = tl.where(counts, d_scores * gradient, 0.0).to(theirs.dtype)
                result = tl.dot(d_scores, theirs, result, input_precision="ieee")
        if WITH_OWN:
            at = start * d_own_row + head * d_own_head
            result *= 0.5 * scale / max_len
            if own_inputs is None:
                store_rows(d_own + at, d_own_row, rows, length, result, WIDTH, PADDED)
            else:
                inputs = own_inputs + at
                store_input_gradients(d_own + at, inputs, d_own_row, rows, length, result, WIDTH, PADDED, SPECIALISED)
        if WITH_VALUES:
            at = start * d_own_values_row + head * d_own_values_head
            to = d_own_values + at
            result_values /= max_len
            if own_values_inputs is None:
                store_rows(to, d_own_values_row, rows, length, result_values, VALUE_WIDTH, VALUE_PADDED)
            else:
                inputs = own_values_inputs + at
                store_input_gradients(
                    to, inputs, d_own_values_row, rows, length, result_values, VALUE_WIDTH, VALUE_PADDED, SPECIALISED
                )


def backward_configs(
    block: int,
    widest: int,
    dtype: torch.dtype,
    has_descriptors: bool = False,
    is_biased: bool = False,
    of_queries: bool = False,
) -> list[triton.Config]:
    """The committed configurations for `block` own rows of heads padded to `widest` columns: in bf16 none of them
    spills. For warps of their own a program's two tiles and two sums are too much, so they make dq alone."""
    if dtype == torch.float32:
        # Of 256 columns 200 bytes a thread spill with eight warps, and 2 KB with four.
        return configs([(16, 4 if widest <= 128 else 8, 1)])
    if widest > 256:
        return configs([(16, 4, 1)])
    if block == 64:
        if widest == 256:
            return configs([(16, 8, 2), (32, 8, 1)])
        return configs([(32, 8, 2), (32, 4, 2) if widest == 32 else (16, 4, 2)])
    if widest == 256:
        return configs([(32, 8, 2)]) + (by_descriptors(32, 2) if has_descriptors and not is_biased else [])
    if widest == 128:
        found = configs([(32, 8, 2), (32, 8, 3)])
        if has_descriptors and of_queries and not is_biased:
            return found + by_descriptors(64, 2, (64, 2))
        return found + (by_descriptors(32, 2) if has_descriptors else [])
    return configs([(32, 8, 3), (64, 8, 2)])


@cache
def _kernel(*sizes: Any) -> Any:
    key = ["WIDTH", "VALUE_WIDTH", "HAS_POSITION", "HAS_TIME", "HAS_LIMITS", "OF_QUERIES", "WITH_OWN"]
    return tuned(backward_configs(*sizes), key, "own")(hstu_attention_backward)


Sides = tuple[Tensor, Tensor, Tensor]


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    settings: Settings,
    gradients: Sides | None = None,
    inputs: Sides | None = None,
) -> Sides:
    """dq, dk and dv, contiguous, or in `gradients`; `grad` (T, H, Dv) may have any strides of rows and heads.

    inputs: of whose SiLU q, k and v are the results, laid out as `gradients`, which are then theirs.
    """
    if gradients is None:
        gradients = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    dq, dk, dv = gradients
    zq, zk, zv = inputs or (None, None, None)
    if dq.numel() == 0:
        return gradients
    queries = {"d_own": dq, "d_own_values": dv, "own": q, "own_values": grad, "other": k, "other_values": v}
    keys = {"d_own": dk, "d_own_values": dv, "own": k, "own_values": v, "other": q, "other_values": grad}
    queries |= {"own_inputs": zq, "own_values_inputs": zv}
    keys |= {"own_inputs": zk, "own_values_inputs": zv}
    _launch(queries, q, v, settings, of_queries=True, with_own=True, with_values=False)
    if max(block_of(q.shape[2]), block_of(v.shape[2])) > 128:
        _launch(keys, q, v, settings, of_queries=False, with_own=True, with_values=False)
        _launch(keys, q, v, settings, of_queries=False, with_own=False, with_values=True)
    else:
        _launch(keys, q, v, settings, of_queries=False, with_own=True, with_values=True)
    return gradients


def _launch(
    sides: dict[str, Tensor | None],
    q: Tensor,
    v: Tensor,
    settings: Settings,
    *,
    of_queries: bool,
    with_own: bool,
    with_values: bool,
) -> None:
    widest = max(block_of(q.shape[2]), block_of(v.shape[2]))
    block = block_rows(widest, settings.max_len, q.dtype, shared_memory(q.device))
    arguments = common_arguments(q, v, settings, block)
    strides = {
        f"{name}_{dim}": sides[name].stride(i)
        for name in ("d_own", "d_own_values", "own", "own_values", "other", "other_values")
        for i, dim in enumerate(("row", "head"))
    }
    is_biased = arguments["HAS_POSITION"] or arguments["HAS_TIME"]
    by_tile = (sides[name] for name in ("own", "own_values", "other", "other_values"))
    has_descriptors = tiles_are_whole(q, v, arguments) and take_descriptors(*by_tile)
    kernel = _kernel(block, widest, q.dtype, has_descriptors, is_biased, of_queries)
    items = (q.shape[0] // block + arguments["sequences"]) * q.shape[1]
    persistent = programs(q, 1 if widest > 64 else 2)
    with on_device_of(q, makes_descriptors=has_descriptors):
        kernel[lambda meta: (items if meta.get("LOADS") else persistent,)](
            **sides,
            **arguments,
            **strides,
            OF_QUERIES=of_queries,
            WITH_OWN=with_own,
            WITH_VALUES=with_values,
            BLOCK=block,
        )
