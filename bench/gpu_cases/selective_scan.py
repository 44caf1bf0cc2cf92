"""Mamba-1's published proportions: 1,024 channels, 16 or 32 states; 32,768 tokens, as whole sequences and in pieces.

Instructions are those that nvcc 13.0 makes for sm_90, counted by hand (csrc/cuda tells them); each takes a lane's slot
as a multiply-add of two FLOPs would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench import work as least_work
from uqabench.kernels.selective_scan.cuda import MOST_ROWS, block_threads, items_of_work, thread_channels, thread_groups
from uqabench.kernels.selective_scan.operator import KEPT_EVERY, MOST_STATES

from . import CudaCase, Work

CHANNELS, TOKENS = 1024, 32_768
DTYPES = {"bf16": ("__nv_bfloat16", 2), "fp32": ("float", 4)}
STEP = 8  # tokens, 4 bytes each in shared memory
INSTRUCTION = 2.0  # FLOPs of the fp32 pipes that fit into its slot


def forward_shared(states: int, each: int) -> int:
    """Bytes a block of scan_forward: rates and states, a column for each of a thread's channels; rows of B and C."""
    return states * (8 * block_threads(states) * each + 8 * STEP)


def ends_shared(states: int) -> int:
    """Bytes a block of scan_ends and scan_ends_backward: rates and states or their gradients; the rows of B or C."""
    return states * (8 * block_threads(states) + 4 * STEP)


def backward_shared(states: int, each: int) -> int:
    """Bytes a block of scan_backward: columns, warps' sums, and the rows of B and C."""
    threads = block_threads(states)
    columns, sums = (4 * states + 2 + STEP) * each, threads // 32 * 2 * STEP * states
    return 4 * (columns * threads + sums) + 8 * STEP * states


def parameters_shared() -> int:
    """Bytes a block of sum_parameters: a number a thread."""
    return 4 * 256


@dataclass(frozen=True)
class _Size:
    states: int
    sequences: int  # of equal length
    dtype: str

    @property
    def element(self) -> int:
        return DTYPES[self.dtype][1]

    @property
    def shift(self) -> int:
        return items_of_work(TOKENS, CHANNELS, self.states, self.sequences)[0]

    @property
    def items(self) -> int:
        return items_of_work(TOKENS, CHANNELS, self.states, self.sequences)[1]

    @property
    def pieces(self) -> int:
        """Items that exist: sequences that are shorter than a piece leave some out."""
        return self.sequences * -(-(TOKENS // self.sequences) // (1 << self.shift))

    @property
    def cuts(self) -> int:
        """Pieces that have another behind them."""
        return self.pieces - self.sequences

    @property
    def each(self) -> int:
        """Channels of a thread of scan_forward and scan_backward."""
        return thread_channels(self.states, CHANNELS)

    @property
    def groups(self) -> int:
        """Their blocks for a token's channels."""
        return thread_groups(CHANNELS, self.states)

    def __str__(self) -> str:
        return f"{TOKENS} tokens in {self.sequences} x {CHANNELS}, {self.states} states {self.dtype}"


def cuda_cases() -> Iterator[CudaCase]:
    for dtype in DTYPES:
        for states in (16, 32):
            for sequences in (128, 4):
                yield from _cases(_Size(states, sequences, dtype))


def _cases(size: _Size) -> Iterator[CudaCase]:
    """The kernels of both passes with states kept; those of cut sequences only where there are any."""
    instance, warps = DTYPES[size.dtype][0], block_threads(size.states) // 32
    name = f"{instance}, {size.each}"
    for function, work, shared in (
        ("scan_forward", _forward(size), forward_shared),
        ("scan_backward", _backward(size), backward_shared),
    ):
        asked = shared(size.states, size.each), shared(MOST_STATES, 1)
        yield CudaCase(f"selective_scan:{function}", str(size), name, warps, *asked, work)
    if size.cuts:
        asked = ends_shared(size.states), ends_shared(MOST_STATES)
        for function, rows in (("scan_ends", 2), ("scan_ends_backward", 3)):
            yield CudaCase(f"selective_scan:{function}", str(size), instance, warps, *asked, _ends(size, rows))
        for is_backward, what in (("false", "states"), ("true", "gradients")):
            of = f"{what} of {size}"
            yield CudaCase("selective_scan:carry", of, f"{instance}, {is_backward}", 4, 0, 0, _carry(size))
    yield CudaCase("selective_scan:sum_tokens", str(size), instance, 4, 0, 0, _sum_tokens(size))
    asked = parameters_shared(), parameters_shared()
    yield CudaCase("selective_scan:sum_parameters", str(size), instance, 8, *asked, _sum_parameters(size))


def _forward(size: _Size) -> Work:
    """Instructions of a state: 6.2 in the loop with two channels a thread or 6.8 with one, and to keep it and stage B
    and C."""
    elements, states = TOKENS * CHANNELS, size.states
    kept = 4 * states / KEPT_EVERY["cuda"]
    return Work(
        vector_flops=INSTRUCTION * elements * ((7.4 if size.each == 2 else 8.3) * states + 62),
        special_ops=elements * (states + 4.0),
        bytes=least_work.selective_scan(TOKENS, CHANNELS, states, size.element).forward.bytes + elements * kept,
        blocks=size.pieces * size.groups,
    )


def _backward(size: _Size) -> Work:
    """Instructions of a state: 21 in the loop with two channels a thread or 26.5 with one, of which 8 for both or for
    one are for the sums of B's and C's gradients over a warp's channels; and to read it, stage B and C, add sums."""
    elements, states = TOKENS * CHANNELS, size.states
    kept, partials = 4 * states / KEPT_EVERY["cuda"], 8 * states * size.groups / CHANNELS
    return Work(
        vector_flops=INSTRUCTION * elements * ((22.7 if size.each == 2 else 29.1) * states + 138),
        special_ops=elements * (states + 5),
        bytes=elements * (7 * size.element + kept + partials) + TOKENS * 2 * states * size.element,
        blocks=min(size.pieces, MOST_ROWS) * size.groups,
    )


def _ends(size: _Size, rows: int) -> Work:
    """Over the pieces with another behind them: a state costs 5.8 instructions, an element about 40 besides."""
    elements = size.cuts * (1 << size.shift) * CHANNELS
    return Work(
        vector_flops=INSTRUCTION * elements * (5.8 * size.states + 40),
        special_ops=elements * (size.states + 2.0),
        bytes=elements * rows * size.element + 4 * size.cuts * CHANNELS * (size.states + 1),
        blocks=size.cuts * -(-CHANNELS // block_threads(size.states)),
    )


def _carry(size: _Size) -> Work:
    """Every piece's state is read and written, and its sum of steps read, by a thread a state and channel."""
    pieces, columns = size.pieces, CHANNELS * size.states
    return Work(
        vector_flops=INSTRUCTION * 12.0 * pieces * columns,
        special_ops=float(pieces * columns),
        bytes=4.0 * pieces * columns * 3,
        blocks=-(-columns // 128) * size.sequences,
    )


def _sum_tokens(size: _Size) -> Work:
    sums, groups = TOKENS * 2 * size.states, size.groups
    return Work(
        vector_flops=INSTRUCTION * sums * (2.0 * groups + 30),
        bytes=sums * (4.0 * groups + size.element),
        blocks=-(-sums // 128),
    )


def _sum_parameters(size: _Size) -> Work:
    sums = (size.states + 2) * CHANNELS
    rows = min(size.items, MOST_ROWS)
    return Work(bytes=4.0 * sums * (rows + 1), blocks=(size.states + 2) * CHANNELS // 32)
