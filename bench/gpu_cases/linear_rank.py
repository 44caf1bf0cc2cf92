"""Ranks in a catalogue of 994,447 items (Amazon-M2's size), bf16: T = 1,024 and 8,192, d = 128 and 512."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bench import work as least_work
from bench.gpu_cases import KernelCase, Work
from bench.gpu_cases.linear_cross_entropy import ITEMS, MULTIPROCESSORS
from uqabench.kernels.linear_rank import triton_count

_SIGNATURE = {
    "hidden": "*bf16",
    "weight": "*bf16",
    "wanted": "*i64",
    "order": "*i64",
    "counts": "*i32",
    **dict.fromkeys(("tokens", "items", "length", "width", "hidden_row", "weight_row", "size"), "i32"),
}


def kernel_cases() -> Iterator[KernelCase]:
    for tokens in (1024, 8192):
        for width in (128, 512):
            yield from (_case(tokens, width, arch) for arch in (80, 90))


def _case(tokens: int, width: int, arch: int) -> KernelCase:
    def work(config: Any) -> Work:
        scores, least = float(tokens) * ITEMS, least_work.linear_rank(tokens, ITEMS, width, element=2).forward
        return Work(
            tensor_flops=least.flops,
            useful_flops=least.flops,
            vector_flops=3 * scores,  # compare, select, add
            bytes=least.bytes,
            blocks=max(MULTIPROCESSORS, tokens // config.kwargs["ROWS"]),
        )

    return KernelCase(
        kernel="linear_rank",
        size=f"T={tokens} d={width} bf16 sm_{arch}",
        function=triton_count.count_slice,
        signature=_SIGNATURE,
        constants={"BLOCK_D": width},
        configs=triton_count.configs(width, torch.bfloat16, arch),
        work=work,
        expects={"sm_90": ("wgmma", "cp.async"), "sm_80": ("mma.sync", "cp.async")},
        aligned=("length", "width", "hidden_row", "weight_row"),
        archs=(arch,),
    )
