"""The Triton kernel of SiLU(x @ weight.T + bias).

A program owns BLOCK_M x BLOCK_N results, whose fp32 accumulators stay in registers (64 or 128 for each thread), and
loops over the inner width, 64 at a time, through 3 or 4 stages of shared memory that cp.async fills:
(BLOCK_M + BLOCK_N) * 128 bytes each. Neighbouring programs share rows of x; the weight stays in the L2 cache. The
epilogue adds the bias, and writes the sum for the backward pass and its SiLU: 4 bytes written for each result, where a
projection and a SiLU apart move 6. Two programs of 128 x 128 fit a multiprocessor, so that the epilogue of one runs
beside the products of the other; one of 128 x 256 reads a quarter less from the L2 cache. docs/gpu.md says what bounds
it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..rows import as_rows
from ..triton_tools import on_device_of, tuned


def _tile(block_m: int, block_n: int, num_warps: int, num_stages: int) -> triton.Config:
    """All have one BLOCK_K, so that every tile adds in the same order."""
    blocks = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": 64}
    return triton.Config(blocks, num_warps=num_warps, num_stages=num_stages)


TILES = [_tile(128, 128, 8, 3), _tile(128, 256, 8, 3), _tile(256, 128, 8, 3), _tile(64, 128, 4, 4)]


@triton.jit
def _finish(y, z, bias, total, row, column, rows, columns, first_column):
    """Bias and SiLU of a part of a tile; y, z and bias point at the tile."""
    is_column = column < columns - first_column
    if bias is not None:
        total += tl.load(bias + column, is_column, other=0.0).to(tl.float32)[None, :]
    written = row[:, None] * columns + column[None, :]
    mask = (row < rows)[:, None] & is_column[None, :]
    if z is not None:
        tl.store(z + written, total.to(z.dtype.element_ty), mask)
    tl.store(y + written, (total * tl.sigmoid(total)).to(y.dtype.element_ty), mask)


@triton.jit
def forward_kernel(
    y, z, x, weight, bias, x_stride, weight_stride, rows, columns, width,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(columns, BLOCK_N)
    first_row = (tl.program_id(0) // blocks) * BLOCK_M
    first_column = (tl.program_id(0) % blocks) * BLOCK_N
    row = tl.arange(0, BLOCK_M)
    column = tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    # Past the end the last row is read again and not written, so that the loop needs no mask but the inner width's.
    # Offsets within a tile have 32 bits, because addresses would take registers that the accumulators need.
    left = x + first_row.to(tl.int64) * x_stride
    right = weight + first_column.to(tl.int64) * weight_stride
    left_offset = tl.minimum(row, rows - 1 - first_row)[:, None] * x_stride + inner[None, :]
    right_offset = tl.minimum(column, columns - 1 - first_column)[None, :] * weight_stride + inner[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_K):
        is_inner = inner < width - start
        a = tl.load(left + start + left_offset, is_inner[None, :], other=0.0)
        b = tl.load(right + start + right_offset, is_inner[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    offset = first_row.to(tl.int64) * columns + first_column
    z_tile = None if z is None else z + offset
    bias_tile = None if bias is None else bias + first_column
    rows -= first_row
    # One half of the columns after the other, which takes fewer registers than all at once.
    first, second = total.reshape(BLOCK_M, 2, BLOCK_N // 2).permute(0, 2, 1).split()
    column = tl.arange(0, BLOCK_N // 2)
    _finish(y + offset, z_tile, bias_tile, first, row, column, rows, columns, first_column)
    _finish(y + offset, z_tile, bias_tile, second, row, column + BLOCK_N // 2, rows, columns, first_column)


_tuned_kernel = tuned(TILES, key=("columns", "width"), tokens="rows")(forward_kernel)


def forward(y: Tensor, z: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Writes y (..., n) and, if given, z, the input of SiLU; both contiguous."""
    if y.numel() == 0:
        return
    x, (columns, width) = as_rows(x), weight.shape

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(x.shape[0], tile["BLOCK_M"]) * triton.cdiv(columns, tile["BLOCK_N"]),)

    with on_device_of(x):
        _tuned_kernel[grid](y, z, x, weight, bias, x.stride(0), weight.stride(0), x.shape[0], columns, width)
