"""Mamba-2's published proportions: 16 heads of 64 (width 1,024), 128 states, one group; 8 or 32 sequences of 512."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from uqabench.kernels.ssd_scan import triton_backward, triton_backward_shared, triton_forward, triton_states
from uqabench.kernels.ssd_scan.triton_chunk import CHUNK, heads_each

from . import KernelCase, Work

HEADS, WIDTH, GROUPS, STATES = 16, 64, 1, 128
SEQUENCES = {4096: 8, 16384: 32}
EACH = heads_each(HEADS, GROUPS)
STEPS = {"A": "*fp32", "dt_bias": "*fp32", "offsets": "*i64", "order": "*i64", "first_chunk": "*i64"}
SIZES = {"heads": HEADS, "groups": GROUPS, "width": WIDTH, "states": STATES}
EXPECTS = {"bf16": {"sm_90": ("wgmma",), "sm_80": ("mma.sync",)}, "fp32": {}}


def kernel_cases() -> Iterator[KernelCase]:
    for dtype, element in (("bf16", 2), ("fp32", 4)):
        for tokens in SEQUENCES:
            size = f"{tokens} tokens, {HEADS} heads of {WIDTH}, {STATES} states, {dtype}"
            yield _states(size, dtype, tokens, element, reverse=False)
            yield _states(size, dtype, tokens, element, reverse=True)
            yield _outputs(size, dtype, tokens, element)
            yield _gradients(size, dtype, tokens, element, shared=False)
            yield _gradients(size, dtype, tokens, element, shared=True)


def _rows(dtype: str, **names: tuple[str, str]) -> dict[str, str]:
    """Tensors whose rows are strided, each with its two strides."""
    return {k: v for name, (a, b) in names.items() for k, v in {name: f"*{dtype}", a: "i32", b: "i32"}.items()}


def _strides(signature: dict[str, str]) -> tuple[str, ...]:
    return tuple(name for name in signature if name.endswith(("_token", "_head", "_group", "_stride")))


def _case(kernel: str, size: str, dtype: str, function: Any, signature, constants, configs, work: Callable[..., Work]):
    signature = signature | STEPS | {"dt": f"*{dtype}", "dt_stride": "i32"}
    constants = constants | SIZES | {"SOFTPLUS": True, "CHUNK": CHUNK}
    aligned = _strides(signature)
    return KernelCase(
        kernel, size, function, signature, constants, configs, work, EXPECTS[dtype], aligned, hot=dtype == "bf16"
    )


def _states(size: str, dtype: str, tokens: int, element: int, reverse: bool) -> KernelCase:
    signature = {"between": f"*{dtype}"} | _rows(
        dtype, rows=("rows_token", "rows_head"), other=("other_token", "other_group"), gate=("gate_token", "gate_head")
    )
    constants = {"initial": None, "final": None, "REVERSE": reverse, "MOST_P": WIDTH, "MOST_N": STATES}
    if not reverse:
        del signature["gate"]
        constants["gate"] = None

    def work(config: Any) -> Work:
        block = min(config.kwargs["BLOCK"], STATES)
        flops = 2.0 * tokens * HEADS * WIDTH * STATES
        rows = tokens * HEADS * WIDTH * (2 if reverse else 1) + tokens * GROUPS * STATES + tokens * HEADS
        return Work(
            tensor_flops=flops,
            useful_flops=flops,
            vector_flops=4.0 * tokens * HEADS * (WIDTH + STATES),
            special_ops=tokens * HEADS * (5.0 + (2 * WIDTH if reverse else 0)) * STATES / block,
            bytes=element * (rows + tokens // CHUNK * HEADS * WIDTH * STATES),
            blocks=SEQUENCES[tokens] * HEADS * -(-WIDTH // 64) * -(-STATES // block),
        )

    name = "ssd_scan_state_gradients" if reverse else "ssd_scan_states"
    return _case(
        name, size, dtype, triton_states.states_kernel.fn, signature, constants, triton_states.CONFIGS, work
    )  # fmt: skip


def _inputs(dtype: str) -> dict[str, str]:
    return _rows(
        dtype, x=("x_token", "x_head"), z=("z_token", "z_head"), B=("B_token", "B_group"), C=("C_token", "C_group")
    ) | {"D": "*fp32", "sequences": "i32"}


def _outputs(size: str, dtype: str, tokens: int, element: int) -> KernelCase:
    signature = _inputs(dtype) | dict.fromkeys(("y", "ungated", "before"), f"*{dtype}")
    constants = {"HEADS": EACH, "BLOCK_P": min(64, WIDTH), "BLOCK_N": STATES}

    def work(config: Any) -> Work:
        inner = tokens * HEADS * 2.0 * (STATES * WIDTH + CHUNK * WIDTH)
        shared = tokens * HEADS / EACH * 2.0 * CHUNK * STATES
        rows = 4 * tokens * HEADS * WIDTH + 2 * tokens * STATES * HEADS / EACH
        return Work(
            tensor_flops=inner + shared,
            useful_flops=inner - tokens * HEADS * CHUNK * WIDTH + tokens * GROUPS * CHUNK * STATES,
            vector_flops=tokens * HEADS * (5.0 * CHUNK + 8 * WIDTH),
            special_ops=tokens * HEADS * (CHUNK + 2.0 * WIDTH),
            bytes=element * (rows + tokens // CHUNK * HEADS * WIDTH * STATES),
            blocks=tokens // CHUNK * HEADS // EACH,
        )

    return _case(
        "ssd_scan_outputs", size, dtype, triton_forward.outputs_kernel.fn, signature, constants,
        triton_forward.CONFIGS, work,
    )  # fmt: skip


def _gradients(size: str, dtype: str, tokens: int, element: int, shared: bool) -> KernelCase:
    in_dtype = ("ddt",) if shared else ("dx", "dz", "ungated")
    in_float = ("of_token", "of_chunk", "dB", "dC") if shared else ("of_token", "of_chunk")
    signature = _inputs(dtype) | dict.fromkeys((*in_dtype, "grad", "before", "after"), f"*{dtype}")
    signature |= dict.fromkeys(in_float, "*fp32") | {"tokens": "i32"}
    if shared:
        del signature["D"]
    constants = {"HEADS": EACH, "MOST_P": WIDTH, "BLOCK_N": STATES}

    def work(config: Any) -> Work:
        inner = tokens * HEADS * 2.0 * WIDTH * (CHUNK + 2 * STATES)
        once = tokens * HEADS / EACH * 2.0 * CHUNK * STATES * (3 if shared else 1)
        masked = tokens * HEADS * WIDTH * CHUNK
        rows = (3 if shared else 6) * tokens * HEADS * WIDTH + 2 * tokens * STATES * HEADS / EACH
        sums = 4 * tokens * HEADS * (3 + (2 * STATES / EACH if shared else 0))
        return Work(
            tensor_flops=inner + once,
            useful_flops=inner - masked + (once * EACH / HEADS / 2 if shared else 0),
            vector_flops=tokens * HEADS * (10.0 * CHUNK + 16 * WIDTH),
            special_ops=tokens * HEADS * (CHUNK + 2.0 * WIDTH),
            bytes=element * (rows + 2 * tokens // CHUNK * HEADS * WIDTH * STATES) + sums,
            blocks=tokens // CHUNK * HEADS // EACH,
        )

    module = triton_backward_shared if shared else triton_backward
    function = (module.shared_gradients_kernel if shared else module.input_gradients_kernel).fn
    name = "ssd_scan_shared_gradients" if shared else "ssd_scan_input_gradients"
    return _case(name, size, dtype, function, signature, constants, module.CONFIGS, work)
