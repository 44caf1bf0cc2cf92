"""Calling the compiled module on tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .backend import native_module


def call(function: str, *tensors: Tensor | None, **settings: Any) -> None:
    """Runs `uqabench._native.FUNCTION` in place on the memory of CPU tensors, with torch's number of threads."""
    arrays = (None if x is None else x.detach().numpy() for x in tensors)
    getattr(native_module(), function)(*arrays, **settings, threads=torch.get_num_threads())


def empty_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    """A contiguous uninitialised tensor for each: what a kernel writes in full."""
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors)
