"""How the CUDA kernels of the compiled module run on torch's tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .backend import native_module


def run_kernels(function: str, sizes: Sequence[int], tensors: Sequence[Tensor | None], device: torch.device) -> None:
    """Launches the kernels of `uqabench._native.FUNCTION` on the device's current stream, without waiting for them.

    Raises:
        RuntimeError: with the CUDA runtime's message where it refuses, e.g. for want of a driver.
    """
    pointers = [0 if x is None else x.data_ptr() for x in tensors]
    stream = torch.cuda.current_stream(device).cuda_stream
    getattr(native_module(), function)(list(sizes), pointers, device.index, stream)
