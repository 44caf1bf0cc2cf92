"""What the Triton kernels share. Imports triton: only the modules `triton_*.py` may do so. An operator's `triton.py`
imports those: it is imported itself when the backend first runs.

Under TRITON_INTERPRET=1 (set before triton is imported) every kernel runs on CPU tensors, program after program: for
tests. Interpreted, a kernel takes its first configuration and few programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .memory import remember
from .triton_tuning import Tuned

INTERPRETED = bool(triton.knobs.runtime.interpret)


def tuned(configs: Sequence[triton.Config], key: Sequence[str], tokens: str | None = None) -> Callable[[Any], Any]:
    """Decorates a `triton.jit` function: the fastest of `configs` for each value of the arguments named in `key`, and
    each power of two of the tokens that the argument `tokens` counts (None: an argument of the key says it).

    `configs` is the committed list that bench/aot.py compiles ahead of time; triton_tuning.py says who chooses.
    """
    if INTERPRETED or len(configs) == 1:
        return triton.autotune(list(configs[:1]), key=[])
    return partial(Tuned, configs=configs, key=key, tokens=tokens)


def on_device_of(x: Tensor, *, makes_descriptors: bool = False) -> AbstractContextManager[Any]:
    """Within the block, kernels are launched on x's device, on its current stream. Those that may make tensor
    descriptors need memory for them, which each thread has to offer anew."""
    if makes_descriptors:
        triton.set_allocator(_memory)
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _memory(size: int, alignment: int, stream: int | None) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def take_descriptors(*matrices: Tensor) -> bool:
    """Whether tiles of the tensors, with rows along the first dimension, can be copied by tensor descriptors: on Hopper
    (later cards specialise warps in another way), from 16-byte boundaries. On CPU (interpreted) as on Hopper."""
    device = matrices[0].device
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
        return False
    return all(
        x.stride(-1) == 1 and x.data_ptr() % 16 == 0 and all(n * x.element_size() % 16 == 0 for n in x.stride()[:-1])
        for x in matrices
    )


@cache
def architecture(device: torch.device) -> int:
    """90 for Hopper and later, 80 before; on CPU (interpreted) 90: what tiles and configurations depend on."""
    return 80 if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < 9 else 90


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def programs(x: Tensor, per_multiprocessor: int = 1) -> int:
    """Programs of a persistent launch on x's device; 3 on CPU, where the interpreter runs one after the other."""
    return _multiprocessors(x.device) * per_multiprocessor if x.is_cuda else 3


def tile_schedule(offsets: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Work for a persistent launch over tiles of `block` tokens, longest sequences first, without asking the device.

    Returns:
        order: int64 (B,), the sequences from the longest to the shortest.
        first_tile: int64 (B+1,), tile t belongs to sequence order[s] where first_tile[s] <= t < first_tile[s + 1];
            first_tile[B] tiles in all. Kept on the offsets tensor, so the layers of a model share it.

    A captured CUDA graph makes its own at each replay, and at each call: it follows the offsets' values, but the number
    of tokens and of sequences is that of the capture.
    """
    return remember(offsets, f"tiles of {block}", lambda: _tile_schedule(offsets, block))


def _tile_schedule(offsets: Tensor, block: int) -> tuple[Tensor, Tensor]:
    lengths, order = offsets.diff().sort(descending=True, stable=True)
    first_tile = torch.zeros_like(offsets)
    torch.cumsum((lengths + (block - 1)) // block, 0, out=first_tile[1:])
    return order, first_tile


@triton.jit
def find_sequence(first_tile, tile, sequences, COUNTED: tl.constexpr = False):
    """The s with first_tile[s] <= tile < first_tile[s + 1], by bisection; `sequences` is B.

    COUNTED: in a loop of log2(B) steps, rounded up, because warps are not specialised around a loop without an end.
    """
    low = tl.zeros((), tl.int32)
    high = low + sequences
    if COUNTED:
        for _ in range(tl.ceil(tl.log2(sequences.to(tl.float32))).to(tl.int32)):
            middle = (low + high) // 2
            is_right = tl.load(first_tile + middle) <= tile
            low = tl.where(is_right, middle, low)
            high = tl.where(is_right, high, middle)
    else:
        while high - low > 1:
            middle = (low + high) // 2
            is_right = tl.load(first_tile + middle) <= tile
            low = tl.where(is_right, middle, low)
            high = tl.where(is_right, high, middle)
    return low
