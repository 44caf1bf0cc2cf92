"""HSTU attention: 8 heads of 32 to 256; 2,193 tokens in 8 sequences of at most 512 and 8,192 in 16 of 512.

Sizes for an H100's shared memory are compiled for sm_90 and those for an A100's for sm_80: the tiles differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from bench import work as least_work
from uqabench.kernels.hstu_attention import triton_backward, triton_forward, triton_launch, triton_tables

from . import KernelCase, Work

HEADS, MAX_LEN, BUCKETS = 8, 512, 128
BATCHES = {2193: [512, 448, 384, 300, 230, 160, 100, 59], 8192: [512] * 16}
SHARED = {80: 163 << 10, 90: 227 << 10}
EXPECTS = {"sm_80": ("mma.sync",), "sm_90": ("wgmma",)}
# The launches of a backward pass: which sums they hold.
LAUNCHES = {
    "dq": {"OF_QUERIES": True, "WITH_OWN": True, "WITH_VALUES": False},
    "dk": {"OF_QUERIES": False, "WITH_OWN": True, "WITH_VALUES": False},
    "dv": {"OF_QUERIES": False, "WITH_OWN": False, "WITH_VALUES": True},
    "dk dv": {"OF_QUERIES": False, "WITH_OWN": True, "WITH_VALUES": True},
}
# Products that a pair of tiles has, and those of them that no other launch of the pass repeats.
PRODUCTS = {
    "forward": (2, 2),
    "backward dq": (3, 1),
    "backward dk": (3, 2),
    "backward dv": (2, 2),
    "backward dk dv": (4, 4),
    "tables": (2, 0),
}


def kernel_cases() -> Iterator[KernelCase]:
    for arch in SHARED:
        for width in (32, 64, 128, 256):
            for is_biased in (False, True):
                yield from _cases(width, is_biased, torch.bfloat16, arch)
        yield from _cases(64, True, torch.bfloat16, arch, is_limited=True)
        yield from _cases(128, False, torch.bfloat16, arch, is_limited=True)
    for width in (64, 128, 256):
        yield from _cases(width, True, torch.float32, 90)
    yield from _cases(256, False, torch.float32, 90)


def _cases(
    width: int, is_biased: bool, dtype: torch.dtype, arch: int, is_limited: bool = False
) -> Iterator[KernelCase]:
    block = triton_launch.block_rows(width, MAX_LEN, dtype, SHARED[arch])
    has_descriptors = arch == 90 and not is_limited
    listed = triton_forward.forward_configs(block, width, dtype, is_biased, has_descriptors)
    common = {"BLOCK": block, "LOADS": "pointers"}
    kernels = [("forward", triton_forward.hstu_attention_forward, common, listed)]
    for launch in ("dq", "dk", "dv") if width > 128 else ("dq", "dk dv"):
        constants = LAUNCHES[launch] | common
        sizes = has_descriptors, is_biased, constants["OF_QUERIES"]
        listed = triton_backward.backward_configs(block, width, dtype, *sizes)
        function = triton_backward.hstu_attention_backward
        kernels.append((f"backward {launch}", function, constants, listed))
    if is_biased:
        own = triton_tables.tables_block(width, dtype)
        constants = {"BUCKETS": BUCKETS, "SHARES": triton_tables.SHARES, "BLOCK": own}
        listed = triton_tables.tables_configs(width, dtype)
        kernels.append(("tables", triton_tables.hstu_attention_tables, constants, listed))
    element = "bf16" if dtype == torch.bfloat16 else "fp32"
    for name, function, constants, listed in kernels:
        for tokens, lengths in BATCHES.items():
            yield KernelCase(
                f"hstu_attention_{name.replace(' ', '_')}",
                f"{tokens} tokens d={width} {'both biases' if is_biased else 'no bias'}"
                f"{' limited' if is_limited else ''} {element} sm_{arch}",
                function,
                _signature(function, element),
                constants | _constants(width, is_biased, is_limited),
                listed,
                _work(lengths, width, dtype, constants["BLOCK"], name, is_biased),
                EXPECTS if element == "bf16" else {},
                tuple(n for n in function.arg_names if n.endswith(("_row", "_head"))),
                # On sm_80 forward at 128 and dk dv at 32 spill 8 bytes, the tables' kernel up to 128; within limits the
                # tables' kernel spills on sm_90 too.
                hot=element == "bf16" and arch == 90 and not (name == "tables" and is_limited),
                archs=(arch,),
            )


def _constants(width: int, is_biased: bool, is_limited: bool) -> dict[str, Any]:
    absent = {} if is_biased else dict.fromkeys(("position_bias", "time_bias", "bucket_ends", "timestamps"))
    absent |= {} if is_limited else dict.fromkeys(("num_targets", "window", "contextual"))
    widths = {"WIDTH": width, "VALUE_WIDTH": width, "PADDED": width, "VALUE_PADDED": width}
    return absent | widths | {"HAS_POSITION": is_biased, "HAS_TIME": is_biased, "HAS_LIMITS": is_limited}


def _signature(function: Any, element: str) -> Mapping[str, str]:
    types = dict.fromkeys(("offsets", "order", "first_tile", "num_targets"), "*i64")
    types |= {"bucket_ends": "*i32", "timestamps": "*i32"}  # where the batch tells the timestamps' bounds
    types |= dict.fromkeys(("position_sums", "time_sums", "scratch"), "*fp32") | {"scale": "fp32"}
    integers = {"sequences", "heads", "max_len", "last_bucket", "window", "contextual"}
    return {
        name: types.get(name, "i32" if name in integers or name.endswith(("_row", "_head")) else f"*{element}")
        for name in function.arg_names
    }


def _work(
    lengths: list[int], width: int, dtype: torch.dtype, block: int, name: str, is_biased: bool
) -> Callable[[Any], Work]:
    """Pairs of tiles are counted in full; each pair of queries and keys is one SiLU, of one special operation or, in
    fp32, of two, and with a time bias one logarithm."""
    special = (2 if dtype == torch.float32 else 1) + is_biased

    def work(config: Any) -> Work:
        stream = config.kwargs.get("STREAM", block)
        pairs = tiles = 0
        for length in lengths:
            for begin in range(0, length, block):
                seen = length - begin if name.startswith(("backward dk", "backward dv")) else min(begin + block, length)
                pairs += block * stream * -(-seen // stream)
                tiles += 1
        products, needed = PRODUCTS[name]
        flops = 2 * width * HEADS
        rows = sum(lengths) * HEADS * width * dtype.itemsize
        return Work(
            tensor_flops=pairs * products * flops,
            useful_flops=needed * least_work.attention(lengths, HEADS, width).again.flops,
            vector_flops=pairs * HEADS * (8 if name == "forward" else 12),
            special_ops=pairs * HEADS * special,
            # Backward, as the block has it, each gradient has SiLU's input beside it.
            bytes=rows * (4 if name in ("forward", "tables") else 8 if name == "backward dk dv" else 6),
            blocks=tiles * (triton_tables.SHARES if name == "tables" else HEADS),
        )

    return work
