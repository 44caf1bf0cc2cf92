"""The sparse AdamW step: 262,144 gradients of 128 for a table of 994,447 rows."""

from __future__ import annotations

from collections.abc import Iterator

from uqabench.kernels.adamw import triton_kernels

from . import KernelCase, Work

ROWS, WIDTH, IDS = 994_447, 128, 262_144
DISTINCT = 2 / 3  # of the ids; popular items repeat
ALIGNED = ("table_stride", "avg_stride", "avg_sq_stride", "grad_stride", "width", "count")
STATE = {"last_step": "*i64", "last_decay": "*fp64", "partials": "*fp32", "sorted_ids": "*i64", "order": "*i64"}
NUMBERS = {name: "fp32" for name in ("add1", "add2", "rate", "root", "eps")}
STEPS = {"count": "i32", "step": "i32", "decayed": "i64", "log_beta1": "i64", "log_beta2": "i64"}


def kernel_cases() -> Iterator[KernelCase]:
    for element, size in (("bf16", 2), ("fp32", 4)):
        tables = {name: f"*{element}" for name in ("table", "exp_avg", "exp_avg_sq", "grads")}
        strides = dict.fromkeys(("table_stride", "avg_stride", "avg_sq_stride", "grad_stride", "width"), "i32")
        signature = tables | STATE | NUMBERS | STEPS | strides
        chunks = IDS // triton_kernels.CHUNK
        moved = IDS * (WIDTH * size + 40) + DISTINCT * IDS * (6 * WIDTH * size + 32)
        # (name, function, configurations, bytes, fp32 operations, blocks)
        kernels = (
            ("pieces", triton_kernels.sparse_adamw_pieces, triton_kernels.PIECES_CONFIGS,
             moved, (IDS + 15 * DISTINCT * IDS) * WIDTH, IDS),
            ("long_runs", triton_kernels.sparse_adamw_long_runs, triton_kernels.LONG_RUNS_CONFIGS,
             chunks * (24 + WIDTH * 4), chunks * WIDTH, chunks),
        )  # fmt: skip
        for name, function, configs, traffic, operations, blocks in kernels:
            work = Work(vector_flops=operations, bytes=traffic, blocks=blocks)
            yield KernelCase(
                f"sparse_adamw_{name}",
                f"{IDS} of {ROWS} x {WIDTH} {element}",
                function,
                signature,
                {"CHUNK": triton_kernels.CHUNK, "BLOCK": triton_kernels.column_block(WIDTH)},
                configs,
                lambda config, work=work: work,
                aligned=ALIGNED,
            )
