"""Counts what would make a GPU wait for the host, or the host for a GPU, on a machine without one.

CPU tensors stand for the device's: every tensor that a step computes with counts as one of the device's, so that
reading a value (`.item()`, `.tolist()`, `bool(x)`, `.numpy()`), an operator whose result's shape depends on values
(`nonzero`, `unique`, indexing by a mask) and a tensor made of the host's values (`torch.tensor`, `torch.from_numpy`),
which would be copied to the device, are found where they happen. The interpreter of Triton kernels is not counted: it
is the device here.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from uqabench.kernels import backend
from uqabench.stages.training import Trainer
from uqabench.stages.unread import EVERY

aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
SHAPES = ("nonzero", "unique", "masked_select", "_unique", "repeat_interleave")
FROM_HOST = ("tensor", "from_numpy", "as_tensor")
TO_HOST = {torch.Tensor.tolist: "tolist", torch.Tensor.numpy: "numpy", torch.Tensor.cpu: "cpu"}


def _caller() -> str | None:
    """The innermost of our functions on the stack; None inside of what is no host's work on a GPU.

    That is the interpreter of kernels, the CPU's own kernels where they stand for CUDA's, and AdamW's step, whose
    counters stay on the host (fused, on a GPU, they lie on the device and no host reads them).
    """
    frame, found = sys._getframe(2), "elsewhere"
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("triton.", "torch.optim.")) or module == "uqabench.kernels.native":
            return None
        if found == "elsewhere" and module.startswith("uqabench."):
            found = f"{module.removeprefix('uqabench.')}.{frame.f_code.co_name}"
        frame = frame.f_back
    return found


class _Calls(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = TO_HOST.get(function)
        if name and (caller := _caller()):
            self.found[f"{name} in {caller}"] += 1
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)
            for x in (args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ())
        )
        # With its size given, repeat_interleave asks the device for nothing.
        by_shape = name.startswith(SHAPES) and not (kwargs or {}).get("output_size")
        if (function in READS or by_shape or by_mask) and (caller := _caller()):
            self.found[f"{name}{' by a mask' if by_mask else ''} in {caller}"] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Within the block, what waits is counted by name."""
    found: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch, _Calls(found), _Operators(found):
        for name in FROM_HOST:  # which no mode sees
            patch.setattr(torch, name, _counting(name, getattr(torch, name), found))
        yield found


def _counting(name: str, function: Callable[..., Any], found: Counter[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if caller := _caller():
            found[f"{name} in {caller}"] += 1
        return function(*args, **kwargs)

    return call


def assert_a_step_asks_for_nothing(trainer: Trainer, first: Any, second: Any) -> None:
    """But for the one reading of the losses of `EVERY` steps; on what the trainer's `load` made of two batches."""
    trainer.is_host_ahead = True
    trainer._step(first)  # what is made once
    trainer.step = EVERY - 1
    with counted() as found:
        trainer._step(second)
    assert dict(found) == {"tolist in stages.unread.read": 1}
    assert len(trainer.losses) == 2 and all(map(math.isfinite, trainer.losses))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Operators run what they run on a GPU: Triton kernels, interpreted."""
    pytest.importorskip("triton")
    from ..kernels.gpu.interpreter import mend_interpreter

    mend_interpreter()
    for operator in backend._operators.values():
        if operator.default["cuda"] != "cuda":  # the CUDA C++ kernels have no interpreter: the CPU's stand for them
            monkeypatch.setitem(operator.default, "cpu", operator.default["cuda"])
            operator._native_for.clear()
    yield
    for operator in backend._operators.values():
        operator._native_for.clear()
