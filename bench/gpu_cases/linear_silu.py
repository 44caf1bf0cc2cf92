"""linear_silu at HSTU's published size, 512 -> 8,192, in bf16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import work as least_work
from uqabench.kernels.linear_silu.triton_forward import TILES, forward_kernel

from . import KernelCase, Work

ROWS, WIDTH, COLUMNS = 16_384, 512, 8_192  # tokens of 32 users of 512


def kernel_cases() -> Iterator[KernelCase]:
    for is_training in (True, False):
        yield _case(is_training)


def _case(is_training: bool) -> KernelCase:
    tensors = ("y", "z", "x", "weight") if is_training else ("y", "x", "weight")
    sizes = ("x_stride", "weight_stride", "rows", "columns", "width")
    return KernelCase(
        "linear_silu_forward" if is_training else "linear_silu_inference",
        f"{WIDTH} -> {COLUMNS} bf16",
        forward_kernel,
        dict.fromkeys(tensors, "*bf16") | dict.fromkeys(sizes, "i32"),
        {"bias": None} if is_training else {"bias": None, "z": None},
        TILES,
        lambda config: _work(config, 2 if is_training else 1),
        expects={"sm_80": ("mma.sync", "cp.async"), "sm_90": ("wgmma", "cp.async")},
        aligned=("x_stride", "weight_stride", "columns", "width"),
    )


def _work(config: Any, results: int) -> Work:
    rows, columns = (-(-n // config.kwargs[block]) for n, block in ((ROWS, "BLOCK_M"), (COLUMNS, "BLOCK_N")))
    least = least_work.linear_silu(ROWS, WIDTH, COLUMNS, element=2).forward
    products = 2.0 * rows * config.kwargs["BLOCK_M"] * columns * config.kwargs["BLOCK_N"] * WIDTH
    return Work(
        tensor_flops=products,
        useful_flops=least.flops,
        vector_flops=4.0 * ROWS * COLUMNS,
        special_ops=2.0 * ROWS * COLUMNS,
        bytes=least.bytes + 2.0 * (results - 1) * ROWS * COLUMNS,
        blocks=rows * columns,
    )
