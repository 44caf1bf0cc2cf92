"""Cross entropy over a catalogue of 994,447 items (Amazon-M2's size), bf16: T = 1,024 and 8,192, d = 128 and 512."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bench import work as least_work
from bench.gpu_cases import KernelCase, Work
from uqabench.kernels.linear_cross_entropy import triton_backward, triton_forward

ITEMS = 994_447
MULTIPROCESSORS = 132
_EXPECTS = {"sm_90": ("wgmma", "cp.async"), "sm_80": ("mma.sync", "cp.async")}
_POINTERS = {
    "states": "*bf16",
    "weight": "*bf16",
    "bias": "*fp32",
    "ids": "*i64",
    "wanted": "*i32",
    "wanted_ids": "*i64",
    "count": "*i64",
}


def kernel_cases() -> Iterator[KernelCase]:
    for tokens in (1024, 8192):
        for width in (128, 512):
            for arch in (80, 90):
                yield _forward(tokens, width, True, arch)
                yield _forward(tokens, width, False, arch)
                yield _backward(tokens, width, arch)


def _absent(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names)


def _forward(tokens: int, width: int, with_product: bool, arch: int) -> KernelCase:
    outputs = {"maxima": "*fp32", "sums": "*fp32", "products": "*fp32"}
    numbers = dict.fromkeys(("items", "length", "places", "width", "weight_row", "size"), "i32")
    constants = {
        "WITH_PRODUCT": with_product, "HAS_BIAS": False, "HAS_IDS": False, "EXACT": False, "BLOCK_D": width,
        "LOADS": "pointers",
        **_absent("bias", "ids", "wanted_ids"),
    }  # fmt: skip
    if not with_product:
        constants |= _absent("products")
    kind = "gradient" if with_product else "losses"

    def work(config: Any) -> Work:
        return _work(tokens, width, config, products=1 + with_product, vector=5 if with_product else 3.5)

    return KernelCase(
        kernel="linear_cross_entropy_forward",
        size=f"T={tokens} d={width} bf16 {kind} sm_{arch}",
        function=triton_forward.softmax_of_slice,
        signature=_POINTERS | outputs | numbers,
        constants=constants,
        configs=triton_forward.configs(width, torch.bfloat16, with_product, arch, has_descriptors=arch == 90),
        work=work,
        expects=_EXPECTS,
        aligned=("length", "places", "width", "weight_row"),
        archs=(arch,),
    )


def _backward(tokens: int, width: int, arch: int) -> KernelCase:
    pointers = {"gradient": "*bf16", "lse": "*fp32", "begins": "*i64", "scale": "*fp32"}
    constants = {
        "HAS_BIAS": False, "HAS_IDS": False, "EXACT": False, "STEP": 64, "BLOCK_D": width,
        "LOADS": "pointers",
        **_absent("bias", "ids", "wanted_ids"),
    }  # fmt: skip

    def work(config: Any) -> Work:
        rows = -(-ITEMS // config.kwargs["ROWS"])
        return _work(tokens, width, config, products=2, vector=2.5, blocks=rows, written=2 * ITEMS * width)

    return KernelCase(
        kernel="linear_cross_entropy_backward",
        size=f"T={tokens} d={width} bf16",
        function=triton_backward.gradient_of_items,
        signature=_POINTERS | pointers | dict.fromkeys(("items", "width", "weight_row", "size"), "i32"),
        constants=constants,
        configs=triton_backward.configs(width, torch.bfloat16, has_descriptors=arch == 90),
        work=work,
        expects=_EXPECTS,
        aligned=("width", "weight_row"),
        hot=width < 512,  # on sm_90 88 bytes spill there, outside the loop over tokens
        archs=(arch,),
    )


def _work(
    tokens: int, width: int, config: Any, *, products: int, vector: float, blocks: int = 0, written: float = 0.0
) -> Work:
    """`vector` fp32 operations and one exponential a logit; items come from device memory once."""
    least = least_work.linear_cross_entropy(tokens, ITEMS, width, element=2).forward
    useful = least.flops * products
    # Two warp groups beside each other on 64 rows both compute all of the logits.
    doubled = config.kwargs["ROWS"] * 2 <= 16 * config.num_warps and products == 2
    logits = float(tokens) * ITEMS
    partial = 4.0 * MULTIPROCESSORS * config.kwargs["ROWS"] * width * 2 if not blocks and products == 2 else 0.0
    return Work(
        tensor_flops=useful * (1.5 if doubled else 1.0),
        useful_flops=useful,
        vector_flops=vector * logits,
        special_ops=logits * (2.0 if doubled else 1.0),
        bytes=least.bytes + written + partial,
        blocks=blocks or max(MULTIPROCESSORS, tokens // config.kwargs["ROWS"]),
    )
