"""Mamba-1's published proportions: 1,024 channels, 16 or 32 states; 32,768 tokens, as whole sequences and in pieces.

Instructions are those that nvcc 13.0 makes for sm_90, counted by hand (csrc/cuda tells them); each takes a lane's slot
as a multiply-add of two FLOPs would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench import work as least_work
from uqabench.kernels.selective_scan.cuda import MOST_ROWS, block_threads, items_of_work
from uqabench.kernels.selective_scan.operator import KEPT_EVERY, MOST_STATES

from . import CudaCase, Work

CHANNELS, TOKENS = 1024, 32_768
DTYPES = {"bf16": ("__nv_bfloat16", 2), "fp32": ("float", 4)}
STEP = 8  # tokens, 4 bytes each in shared memory
INSTRUCTION = 2.0  # FLOPs of the fp32 pipes that fit into its slot


def forward_shared(states: int) -> int:
    """Bytes a block of scan_ends and scan_forward: rates and states, a column a thread, and the rows of B and C."""
    return states * (8 * block_threads(states) + 8 * STEP)


def ends_backward_shared(states: int) -> int:
    """Bytes a block of scan_ends_backward: rates and gradients of states, and the rows of C."""
    return states * (8 * block_threads(states) + 4 * STEP)


def backward_channels(states: int) -> int:
    """Channels of a thread of scan_backward: as in csrc/cuda/selective_scan.h."""
    return 2 if states <= 16 else 1


def backward_shared(states: int) -> int:
    """Bytes a block of scan_backward: columns, warps' sums, and the rows of B and C."""
    threads = block_threads(states)
    columns, sums = (4 * states + 2 + STEP) * backward_channels(states), threads // 32 * 2 * STEP * states
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
    def cuts(self) -> int:
        """Pieces that have another behind them."""
        length = TOKENS // self.sequences
        return self.sequences * (-(-length // (1 << self.shift)) - 1)

    def __str__(self) -> str:
        return f"{TOKENS} tokens in {self.sequences} x {CHANNELS}, {self.states} states {self.dtype}"


def cuda_cases() -> Iterator[CudaCase]:
    for dtype in DTYPES:
        for states in (16, 32):
            for sequences in (128, 4):
                yield from _cases(_Size(states, sequences, dtype))


def _cases(size: _Size) -> Iterator[CudaCase]:
    """The kernels of both passes with states kept; those of cut sequences only where there are any."""
    instance, threads = DTYPES[size.dtype][0], block_threads(size.states)
    groups = -(-CHANNELS // threads)
    each = backward_channels(size.states)
    backward_groups = -(-CHANNELS // (threads * each))
    passes = {
        "scan_forward": (_forward(size, groups), forward_shared),
        "scan_backward": (_backward(size, backward_groups), backward_shared),
    }
    if size.cuts:
        passes["scan_ends"] = (_ends(size, groups, rows=2), forward_shared)
        passes["scan_ends_backward"] = (_ends(size, groups, rows=3), ends_backward_shared)
    for function, (work, shared) in passes.items():
        asked = shared(size.states), shared(MOST_STATES)
        arguments = f"{instance}, {each}" if function == "scan_backward" else instance
        yield CudaCase(f"selective_scan:{function}", str(size), arguments, threads // 32, *asked, work)
    for is_backward, what in (("false", "states"), ("true", "gradients")) if size.cuts else ():
        name = f"{what} of {size}"
        yield CudaCase("selective_scan:carry", name, f"{instance}, {is_backward}", 4, 0, 0, _carry(size))
    yield CudaCase("selective_scan:sum_tokens", str(size), instance, 4, 0, 0, _sum_tokens(size, backward_groups))
    asked = parameters_shared(), parameters_shared()
    yield CudaCase("selective_scan:sum_parameters", str(size), instance, 8, *asked, _sum_parameters(size))


def _forward(size: _Size, groups: int) -> Work:
    elements, states = TOKENS * CHANNELS, size.states
    kept = 4 * states / KEPT_EVERY["cuda"]
    return Work(
        vector_flops=INSTRUCTION * elements * (7.9 * states + 85),
        special_ops=elements * (states + 4.0),
        bytes=least_work.selective_scan(TOKENS, CHANNELS, states, size.element).forward.bytes + elements * kept,
        blocks=size.items * groups,
    )


def _backward(size: _Size, groups: int) -> Work:
    """A state takes 26 instructions, 8 of them for the sums of B's and C's gradients over a warp's channels, and 21
    where two channels share those."""
    elements, states = TOKENS * CHANNELS, size.states
    kept, partials = 4 * states / KEPT_EVERY["cuda"], 8 * states * groups / CHANNELS
    return Work(
        vector_flops=INSTRUCTION * elements * ((26 if backward_channels(states) == 1 else 21) * states + 80),
        special_ops=elements * (states + 5),
        bytes=elements * (7 * size.element + kept + partials) + TOKENS * 2 * states * size.element,
        blocks=_rows(size) * groups,
    )


def _ends(size: _Size, groups: int, rows: int) -> Work:
    """Over the pieces with another behind them: a state costs 5 instructions, an element about 60 besides."""
    elements = size.cuts * (1 << size.shift) * CHANNELS
    return Work(
        vector_flops=INSTRUCTION * elements * (5.0 * size.states + 60),
        special_ops=elements * (size.states + 2.0),
        bytes=elements * rows * size.element + 4 * size.cuts * CHANNELS * (size.states + 1),
        blocks=size.cuts * groups,
    )


def _carry(size: _Size) -> Work:
    """Every piece's state is read and written, and its sum of steps read, by a thread a state and channel."""
    pieces, columns = size.cuts + size.sequences, CHANNELS * size.states
    return Work(
        vector_flops=INSTRUCTION * 12.0 * pieces * columns,
        special_ops=float(pieces * columns),
        bytes=4.0 * pieces * columns * 3,
        blocks=-(-columns // 128) * size.sequences,
    )


def _sum_tokens(size: _Size, groups: int) -> Work:
    sums = TOKENS * 2 * size.states
    return Work(
        vector_flops=INSTRUCTION * sums * (2.0 * groups + 30),
        bytes=sums * (4.0 * groups + size.element),
        blocks=-(-sums // 128),
    )


def _sum_parameters(size: _Size) -> Work:
    sums = (size.states + 2) * CHANNELS
    return Work(bytes=4.0 * sums * (_rows(size) + 1), blocks=(size.states + 2) * CHANNELS // 32)


def _rows(size: _Size) -> int:
    return min(size.items, MOST_ROWS)
