"""Causal attention, 8 heads: of 64, as Trm++'s preset `paper` has (2,193 tokens in 8 sequences, 8,192 in 64), and of
128 and 256 in one sequence of 16,384. The preset `published` has 4 heads of 128."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench import work as least_work
from uqabench.kernels.causal_attention import triton_backward, triton_forward

from . import KernelCase, Work

HEADS = 8
LENGTHS = {64: ([274] * 7 + [275], [128] * 64), 128: ([16_384],), 256: ([16_384],)}
EXPECTS = {"sm_80": ("mma.sync", "cp.async"), "sm_90": ("wgmma", "cp.async")}
READ = ("q", "k", "v")
STRIDES = tuple(f"{name}_{part}" for name in ("grad", *READ) for part in ("stride", "head"))
ALIGNED = STRIDES


def kernel_cases() -> Iterator[KernelCase]:
    for arch in (80, 90):
        for width, batches in LENGTHS.items():
            for lengths in batches:
                yield from _cases(width, lengths, torch.bfloat16, arch)
        yield from _cases(64, LENGTHS[64][1], torch.float32, arch)


def _cases(width: int, lengths: list[int], dtype: torch.dtype, arch: int) -> Iterator[KernelCase]:
    element = "bf16" if dtype == torch.bfloat16 else "fp32"
    forward, backward = (f(width, dtype, arch) for f in (triton_forward.forward_block, triton_backward.backward_block))
    widths = {"D": width, "DV": width, "BLOCK_D": width, "BLOCK_DV": width}
    # (name, function, constants, configurations, products of tiles, of which useful, tensors read or written)
    kernels = (
        ("forward", triton_forward.causal_attention_forward, {"BLOCK_M": forward},
         triton_forward.forward_configs(width, dtype, arch), 2, 2, 4),
        ("backward_keys", triton_backward.causal_attention_backward_keys, {"BLOCK_N": backward},
         triton_backward.keys_configs(width, dtype, arch), 4, 3, 6),
        ("backward_queries", triton_backward.causal_attention_backward_queries, {"BLOCK_M": backward},
         triton_backward.queries_configs(width, dtype, arch), 3, 2, 5),
    )  # fmt: skip
    for name, function, constants, configs, products, useful, tensors in kernels:
        yield KernelCase(
            f"causal_attention_{name}",
            f"{sum(lengths)} tokens in {len(lengths)} d={width} {element}",
            function,
            _signature(element),
            widths | constants,
            configs,
            _work(lengths, width, dtype.itemsize, next(iter(constants.values())), products, useful, tensors),
            EXPECTS if element == "bf16" else {},
            ALIGNED,
            hot=element == "bf16",
            archs=(arch,),
        )
    yield _delta_case(width, lengths, dtype, element, arch)


def _signature(element: str) -> dict[str, str]:
    pointers = {name: f"*{element}" for name in (*READ, "out", "grad", "dq", "dk", "dv")}
    pointers |= {"log_sums": "*fp32", "delta": "*fp32", "offsets": "*i64", "order": "*i64", "first_tile": "*i64"}
    return pointers | dict.fromkeys((*STRIDES, "tokens", "heads", "sequences"), "i32") | {"scale": "fp32"}


def _work(
    lengths: list[int], width: int, bytes_each: int, block: int, products: int, useful: int, tensors: int
) -> Callable[[Any], Work]:
    """Products of whole tiles; k and v (or q and grad) come from L2 after the first tile of a head."""
    tiles = [-(-n // block) for n in lengths]
    scores = HEADS * block * block * sum(n * (n + 1) // 2 for n in tiles)
    product = least_work.attention(lengths, HEADS, width).again.flops
    return lambda config: Work(
        tensor_flops=2.0 * products * width * scores,
        useful_flops=useful * product,
        vector_flops=6.0 * scores,
        special_ops=1.0 * scores,
        bytes=HEADS * sum(lengths) * (tensors * width * bytes_each + 8),
        blocks=HEADS * sum(tiles),
    )


def _delta_case(width: int, lengths: list[int], dtype: torch.dtype, element: str, arch: int) -> KernelCase:
    rows = HEADS * sum(lengths)
    return KernelCase(
        "causal_attention_delta",
        f"{sum(lengths)} tokens in {len(lengths)} d={width} {element}",
        triton_backward.causal_attention_delta,
        _signature(element),
        {"DV": width, "BLOCK_DV": width, "BLOCK": triton_backward.DELTA_BLOCK},
        triton_backward.DELTA_CONFIGS,
        lambda config: Work(
            vector_flops=2.0 * rows * width,
            bytes=rows * (2 * width * dtype.itemsize + 4),
            blocks=HEADS * -(-sum(lengths) // triton_backward.DELTA_BLOCK),
        ),
        aligned=ALIGNED,
        archs=(arch,),
    )
