"""Mamba-2's convolution: x, B and C side by side (1,024 + 2 x 128 channels), K = 4, bias and SiLU."""

from __future__ import annotations

from collections.abc import Iterator

from uqabench.kernels.causal_conv1d import triton_backward, triton_forward

from . import KernelCase, Work

CHANNELS, TAPS = 1280, 4
SEQUENCES = {4096: 8, 16384: 32}
TILE = {"offsets": "*i64", "order": "*i64", "first_tile": "*i64", "sequences": "i32", "channels": "i32"}
CONSTANTS = {"TAPS": TAPS, "TOKENS": triton_forward.TOKENS}


def kernel_cases() -> Iterator[KernelCase]:
    for dtype, element in (("bf16", 2), ("fp32", 4)):
        for tokens in SEQUENCES:
            size = f"{tokens} x {CHANNELS} {dtype}"
            inputs = {"x": f"*{dtype}", "stride": "i32", "weight": f"*{dtype}", "bias": f"*{dtype}"}
            yield KernelCase(
                "causal_conv1d_forward",
                size,
                triton_forward.convolve_kernel.fn,
                {"y": f"*{dtype}"} | inputs | TILE,
                CONSTANTS | {"initial": None, "IS_SILU": True},
                triton_forward.CONFIGS,
                lambda config, n=tokens, e=element: _work(config, n, 2 * e, 2 * TAPS + 3, 2),
                aligned=("stride", "channels"),
            )
            yield KernelCase(
                "causal_conv1d_backward_weight",
                size,
                triton_backward.weight_gradient_kernel.fn,
                {"inner": f"*{dtype}", "partials": "*fp32", "grad": f"*{dtype}", "grad_stride": "i32"} | inputs | TILE,
                CONSTANTS | {"initial": None, "IS_SILU": True, "ROWS": 8},
                triton_backward.WEIGHT_CONFIGS,
                lambda config, n=tokens, e=element: _work(config, n, 3 * e, 4 * TAPS + 8, 2, triton_backward.LANES),
                aligned=("stride", "grad_stride", "channels"),
            )
            yield KernelCase(
                "causal_conv1d_backward_input",
                size,
                triton_backward.input_gradient_kernel.fn,
                {"dx": f"*{dtype}", "inner": f"*{dtype}", "weight": f"*{dtype}"} | TILE,
                CONSTANTS | {"grad_state": None},
                triton_backward.INPUT_CONFIGS,
                lambda config, n=tokens, e=element: _work(config, n, 2 * e, 2 * TAPS, 0),
                aligned=("channels",),
            )


def _work(config, tokens: int, bytes_each: int, vector_flops: int, special_ops: int, lanes: int | None = None) -> Work:
    """Of a launch that does so much an element; `lanes` programs share the tiles, or each tile has its own."""
    elements = tokens * CHANNELS
    tiles = tokens // triton_forward.TOKENS if lanes is None else min(lanes, tokens // triton_forward.TOKENS)
    return Work(
        vector_flops=elements * vector_flops,
        special_ops=elements * special_ops,
        bytes=elements * bytes_each,
        blocks=tiles * -(-CHANNELS // config.kwargs["CHANNELS"]),
    )
