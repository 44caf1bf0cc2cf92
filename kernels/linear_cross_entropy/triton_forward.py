"""Softmax over slices of the catalogue and its product with the catalogue, which is all of the gradient of the tokens.

A program owns ROWS tokens, whose vectors stay in shared memory, and a slice of the catalogue, over which it walks
COLUMNS items at a time. Registers hold ROWS x COLUMNS logits and, for the gradient, ROWS x D accumulators of
p(item) x item, relative to the running maximum (Milakov & Gimelshein 2018, "Online normalizer calculation for
softmax"): logits are computed once for loss and gradient, and no (T, V) tensor exists. There are as many slices as keep
all multiprocessors busy (64 tiles of tokens: 2, 8 tiles: 16); the partial results of T x D floats for each slice are
merged in order afterwards. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_catalogue import EXACT_TILE, add_product, slices
from ..triton_tools import architecture, on_device_of, take_descriptors, tuned
from . import attention
from .triton_tokens import Tokens

_LOG2E = tl.constexpr(1.4426950408889634)
_BLOCK = 128  # slices are whole tiles of any configuration
_ROWS = 128  # tokens of the largest tile, for which the number of slices is chosen


def _config(rows: int, columns: int, warps: int, stages: int, **constants: str) -> triton.Config:
    return triton.Config({"ROWS": rows, "COLUMNS": columns, **constants}, num_warps=warps, num_stages=stages)


def configs(
    block_d: int,
    dtype: torch.dtype,
    with_product: bool,
    arch: int,
    has_descriptors: bool = False,
    is_plain: bool = True,
) -> list[triton.Config]:
    """What the autotuner chooses from, for vectors of block_d on sm_`arch`; `is_plain`: without bias and ids."""
    if dtype == torch.float32:
        return [_config(*EXACT_TILE, 4, 1)]
    if with_product:
        found = {
            # The largest tile needs Hopper: on sm_80 it spills.
            128: [*([_config(128, 128, 8, 2)] if arch >= 90 else []), _config(128, 64, 8, 3), _config(64, 64, 4, 3)],
            256: [_config(128, 64, 8, 2), _config(64, 64, 4, 2)],
            512: [_config(64, 32, 8, 2)],
        }.get(max(block_d, 128), [])
    else:
        found = {
            128: [_config(128, 128, 8, 3), _config(128, 64, 4, 3), _config(64, 128, 4, 3)],
            256: [_config(128, 64, 8, 2), _config(64, 64, 4, 2)],
            512: [_config(64, 32, 4, 2)],
        }.get(max(block_d, 128), [])
    if has_descriptors and block_d == 128:
        stages = 2 if with_product else 3
        found = [*found, _config(128, 128, 8, stages, LOADS="descriptors")]
        found += [_config(128, 128, 4, stages, LOADS="specialised")] if is_plain else []
    elif has_descriptors and block_d == 512 and with_product:
        found = [*found, _config(64, 32, 8, 2, LOADS="descriptors")]
    return found


def slice_softmax(
    tokens: Tokens, weight: Tensor, bias: Tensor | None, ids: Tensor | None, with_product: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """For each slice and each index below `count`, over the slice's logits z: max(z) (S, P), sum(exp(z - max(z))) (S,
    P) and sum(exp(z - max(z)) item) (S, P, D), all float32; the last None without `with_product`."""
    places, block_d = tokens.states.shape
    items = len(weight)
    count, length = slices(items, _BLOCK, -(-max(1, places) // _ROWS), weight)
    if places and with_product and attention.takes(weight, bias, ids):
        return attention.slice_softmax(tokens.states, weight, count, length)
    maxima, sums = tokens.own.new_empty(2, count, places)
    products = tokens.own.new_empty(count, places, block_d) if with_product else None
    if places:
        has_descriptors = weight.dtype == torch.bfloat16 and take_descriptors(weight)
        is_plain = bias is None and ids is None
        with on_device_of(weight, makes_descriptors=has_descriptors):
            arch = architecture(weight.device)
            kernel = _kernel(block_d, weight.dtype, with_product, arch, has_descriptors, is_plain)
            kernel[lambda meta: (places // meta["ROWS"], count)](
                tokens.states, weight, bias, ids, tokens.wanted, tokens.wanted_ids, tokens.count,
                maxima, sums, products,
                items, length, places, weight.shape[1], weight.stride(0), places.bit_length(),
                WITH_PRODUCT=with_product, HAS_BIAS=bias is not None, HAS_IDS=ids is not None,
                EXACT=weight.dtype == torch.float32, BLOCK_D=block_d,
            )  # fmt: skip
    return maxima, sums, products


@cache
def _kernel(*sizes: Any) -> Callable[..., Any]:
    return tuned(configs(*sizes), key=["size"])(softmax_of_slice)


@triton.jit
def softmax_of_slice(
    states, weight, bias, ids, wanted, wanted_ids, count, maxima, sums, products,
    items, length, places, width, weight_row, size,
    WITH_PRODUCT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_IDS: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LOADS: tl.constexpr = "pointers",
):  # fmt: skip
    """`size` is the class of problems for which the autotuner chooses a configuration.

    LOADS is "pointers": a thread copies 16 bytes at a time; "descriptors": whole tiles come by a tensor descriptor; or
    "specialised": all tiles come so, and warps of their own ask for them, around one loop.
    """
    SPECIALISED: tl.constexpr = LOADS == "specialised"
    first = tl.program_id(0) * ROWS
    begin = tl.program_id(1) * length
    end = tl.minimum(begin + length, items)
    if SPECIALISED:
        end = tl.where(first < tl.load(count), end, begin)
    elif first >= tl.load(count):
        return
    inner = tl.arange(0, ROWS)
    rows = first + inner
    depth = tl.arange(0, BLOCK_D)
    tiles = weight
    if LOADS != "pointers":
        tiles = tl.make_tensor_descriptor(weight, [items, width], [weight_row, 1], [COLUMNS, BLOCK_D])
    if SPECIALISED:
        own = tl.make_tensor_descriptor(states, [places, BLOCK_D], [BLOCK_D, 1], [ROWS, BLOCK_D]).load([first, 0])
    else:
        own = tl.load(states + tl.cast(first, tl.int64) * BLOCK_D + (inner * BLOCK_D)[:, None] + depth[None, :])
    own_wanted, own_ids = rows, rows
    if HAS_IDS:
        own_wanted = tl.load(wanted + rows)
        own_ids = tl.load(wanted_ids + rows)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = total
    if WITH_PRODUCT:
        acc = tl.zeros((ROWS, BLOCK_D), tl.float32)
    whole = end if SPECIALISED else begin + (end - begin) // COLUMNS * COLUMNS
    NARROW: tl.constexpr = 16  # narrow, because the accumulators leave few registers for what is needed once
    for start in tl.range(begin, whole, COLUMNS, warp_specialize=SPECIALISED):
        largest, total, acc = _add_tile(
            largest, total, acc, own, own_wanted, own_ids, tiles, weight, bias, ids, start, items, width, weight_row,
            WITH_PRODUCT, HAS_BIAS, HAS_IDS, EXACT, SPECIALISED, LOADS != "pointers", BLOCK_D, COLUMNS,
        )  # fmt: skip
    if not SPECIALISED:
        for start in range(whole, end, NARROW):
            largest, total, acc = _add_tile(
                largest, total, acc, own, own_wanted, own_ids, tiles, weight, bias, ids, start, items, width,
                weight_row, WITH_PRODUCT, HAS_BIAS, HAS_IDS, EXACT, True, False, BLOCK_D, NARROW,
            )  # fmt: skip
    at = tl.cast(tl.program_id(1), tl.int64) * places + first
    tl.store(maxima + at + inner, largest)
    tl.store(sums + at + inner, total)
    if WITH_PRODUCT:
        tl.store(products + at * BLOCK_D + (inner * BLOCK_D)[:, None] + depth[None, :], acc)


@triton.jit
def _add_tile(
    largest, total, acc, own, own_wanted, own_ids, tiles, weight, bias, ids, start, items, width, weight_row,
    WITH_PRODUCT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_IDS: tl.constexpr, EXACT: tl.constexpr,
    IS_LAST: tl.constexpr, BY_DESCRIPTOR: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Softmax over COLUMNS more items; only the last tile may reach beyond the catalogue."""
    columns = tl.arange(0, COLUMNS)
    depth = tl.arange(0, BLOCK_D)
    is_item = start + columns < items
    tile = weight + start * tl.cast(weight_row, tl.int64) + (columns * weight_row)[:, None] + depth[None, :]
    if BY_DESCRIPTOR:
        row = tiles.load([start, 0])
    elif IS_LAST:
        row = tl.load(tile, mask=is_item[:, None] & (depth < width)[None, :], other=0.0)
    else:
        row = tl.load(tile, mask=(depth < width)[None, :], other=0.0)
    scores = add_product(own, tl.trans(row), tl.zeros((own.shape[0], COLUMNS), tl.float32))
    if HAS_BIAS:
        scores += tl.load(bias + start + columns, mask=is_item, other=0.0)[None, :]
    if HAS_IDS:
        is_same = tl.load(ids + start + columns, mask=is_item, other=0)[None, :] == own_ids[:, None]
        is_hidden = is_same & ((start + columns)[None, :] != own_wanted[:, None])
        scores = tl.where(is_hidden, float("-inf"), scores)
    if IS_LAST:
        scores = tl.where(is_item[None, :], scores, float("-inf"))
    now_largest = tl.maximum(largest, tl.max(scores, 1))
    base = tl.where(now_largest == float("-inf"), 0.0, now_largest)  # every candidate so far is left out
    factor = tl.exp2((largest - base) * _LOG2E)
    if EXACT:
        exponents = (scores - base[:, None]) * _LOG2E
    else:  # one instruction, whose error grows with the logits but stays below that of their bf16 factors
        exponents = scores * _LOG2E - (base * _LOG2E)[:, None]
    shares = tl.exp2(exponents)
    total = total * factor + tl.sum(shares, 1)
    if WITH_PRODUCT:
        acc = add_product(shares.to(row.dtype), row, acc * factor[:, None])
    return now_largest, total, acc
