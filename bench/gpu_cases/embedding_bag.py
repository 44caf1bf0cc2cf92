"""Embedding bags: 65,536 bags of 4 ids from a table of 994,447 x 128."""

from __future__ import annotations

from collections.abc import Iterator

from bench import work as least_work
from uqabench.kernels.embedding_bag_mean import triton_kernels

from . import KernelCase, Work

ROWS, WIDTH, BAGS, IDS = 994_447, 128, 65_536, 262_144
DISTINCT = 2 / 3  # of the ids; popular items repeat
ALIGNED = ("table_stride", "grad_stride", "width", "count")


def kernel_cases() -> Iterator[KernelCase]:
    for element, size in (("bf16", 2), ("fp32", 4)):
        yield from _cases(element, size)


def _cases(element: str, size: int) -> Iterator[KernelCase]:
    signature = {name: f"*{element}" for name in ("out", "table", "grad", "values", "gradient")}
    signature |= {name: "*i64" for name in ("ids", "offsets", "sorted_ids", "order", "bags")}
    signature |= {"partials": "*fp32", "count": "i32", "width": "i32", "table_stride": "i32", "grad_stride": "i32"}
    chunked = {"CHUNK": triton_kernels.CHUNK}
    row = WIDTH * size
    # (name, function, further constants, configurations, bytes, adds, blocks)
    kernels = (
        ("mean", triton_kernels.embedding_bag_mean, {}, triton_kernels.MEAN_CONFIGS,
         least_work.embedding_bag_mean(BAGS, IDS, WIDTH, size).forward.bytes + 16 * BAGS, IDS, BAGS),
        ("values", triton_kernels.embedding_bag_values, {}, triton_kernels.VALUES_CONFIGS,
         IDS * row + BAGS * (row + 16), BAGS, BAGS),
        ("pieces", triton_kernels.embedding_bag_pieces, chunked, triton_kernels.PIECES_CONFIGS,
         IDS * (row + 40) + DISTINCT * IDS * row, 2 * IDS, IDS),
        ("long_runs", triton_kernels.embedding_bag_long_runs, chunked, triton_kernels.LONG_RUNS_CONFIGS,
         IDS // triton_kernels.CHUNK * (24 + WIDTH * 4), IDS // triton_kernels.CHUNK, IDS // triton_kernels.CHUNK),
    )  # fmt: skip
    for name, function, constants, configs, moved, adds, blocks in kernels:
        work = Work(vector_flops=adds * WIDTH, bytes=moved, blocks=blocks)
        yield KernelCase(
            f"embedding_bag_{name}",
            f"{BAGS} bags of 4, {ROWS} x {WIDTH} {element}",
            function,
            signature,
            {"BLOCK": triton_kernels.column_block(WIDTH), **constants},
            configs,
            lambda config, work=work: work,
            aligned=ALIGNED,
        )
