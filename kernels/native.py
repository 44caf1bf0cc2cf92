"""How the compiled module's functions run on torch's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .backend import native_module

_count_threads = torch.get_num_threads


def as_array(x: Tensor) -> np.ndarray:
    """NumPy's view of a CPU tensor's memory; of bf16, which NumPy lacks, as uint16. RuntimeError for memory that holds
    the negatives of the tensor's values, as in a view of a conjugate's imaginary part."""
    if x.is_neg():
        raise RuntimeError("a tensor has its negative bit set: pass x.resolve_neg().")
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype is torch.bfloat16 else x).numpy()


def call(function: str, *arguments: Tensor | float | None) -> None:
    """Runs `uqabench._native.FUNCTION` in place on the memory of CPU tensors, with torch's number of threads.

    `arguments` are all but the last one, the threads, in the function's order: pybind11 takes 1 us more for names.
    """
    arrays = [as_array(x) if isinstance(x, Tensor) else x for x in arguments]
    getattr(native_module(), function)(*arrays, _count_threads())


def fill(function: str, results: tuple[Tensor | None, ...], *arguments: Tensor | float | None) -> Any:
    """`results`, once the function, whose first arguments they are, has written them."""
    call(function, *results, *arguments)
    return results
