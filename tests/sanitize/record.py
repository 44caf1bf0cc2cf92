"""Records what the native kernels are called with while every operator's example runs.

`python -m tests.sanitize.record FILE`. The recording is replayed without torch, in a process where a sanitizer
watches. An operator is covered as soon as it has a native backend and an example (tests/kernels/cases.py).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from uqabench.kernels import embedding_bag_mean
from uqabench.kernels.backend import choose, native_module
from uqabench.kernels.native import as_array
from uqabench.kernels.operator import SINGLE_AND_BF16

from ..kernels.cases import NAMES, RAGGED, case, offsets_of
from ..kernels.conftest import outputs_and_gradients
from .replay import Call, is_kernel, saved

SMALL = [(), (0,), (1,), (0, 1, 0), (2, 3), RAGGED]
LARGE = (300, 0, 513, 64, 1, 259)  # past the blocks, chunks and slices of every kernel


def _saved(x: Any) -> Any:
    """A tensor as an array, which the replay, that knows no torch, takes in its place."""
    return saved(as_array(x) if isinstance(x, torch.Tensor) else x)


@contextmanager
def recording(module: ModuleType) -> Iterator[list[Call]]:
    """Every call of the module's kernels within the block."""
    calls: list[Call] = []

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            *others, threads = arguments  # see kernels/native.py; the replay sets it by its name
            calls.append(Call(name, [_saved(x) for x in others], {"threads": threads}))
            return function(*arguments)

        return call

    kernels = {name: function for name, function in vars(module).items() if is_kernel(name, function)}
    for name, function in kernels.items():
        setattr(module, name, wrap(name, function))
    try:
        yield calls
    finally:
        for name, function in kernels.items():
            setattr(module, name, function)


def _train_sparse_table(lengths: tuple[int, ...]) -> None:
    """What no example can be: gradients of the rows used only."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1_501, 19, generator=generator).requires_grad_()
    ids = torch.randint(len(table), (sum(lengths),), generator=generator)
    embedding_bag_mean(table, ids, offsets_of(lengths), sparse=True).sum().backward()


def _run_limited_attention(lengths: tuple[int, ...]) -> None:
    """What the example of hstu_attention does not make: calls with targets, a window and a prefix."""
    example = case("hstu_attention", lengths)
    targets = torch.tensor([n // 3 for n in lengths], dtype=torch.int64)
    for window, prefix in ((0, 0), (5, 0), (0, 70), (40, 3)):
        limits = {"num_targets": targets, "max_attn_len": window, "contextual_seq_len": prefix}
        outputs_and_gradients(lambda limits=limits, **arrays: example.run(**arrays, **limits), example.arrays)


def _run_example(name: str, lengths: tuple[int, ...], dtype: torch.dtype) -> None:
    example = case(name, lengths, dtype)
    outputs_and_gradients(example.run, example.arrays)
    with torch.inference_mode():
        example.run()


def record(lengths: list[tuple[int, ...]]) -> list[Call]:
    """The calls of all operators' examples, forward and backward. RuntimeError if a kernel of the module is not met."""
    module = native_module()
    kernels = {name for name, function in vars(module).items() if is_kernel(name, function)}
    with recording(module) as calls:
        for name in NAMES:
            for dtype in SINGLE_AND_BF16:
                if choose(name, "cpu", dtype) == "native":
                    for each in lengths:
                        _run_example(name, each, dtype)
        for each in lengths:
            _train_sparse_table(each)
            _run_limited_attention(each)
    missing = kernels - {call.function for call in calls}
    if missing:
        raise RuntimeError(f"No example in tests/kernels/cases.py calls {', '.join(sorted(missing))}.")
    return calls


if __name__ == "__main__":
    torch.set_num_threads(2)
    Path(sys.argv[1]).write_bytes(pickle.dumps(record([*SMALL, LARGE])))
