"""Every GPU kernel against its operator's reference: on the GPU where there is one, else interpreted on CPU tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uqabench.kernels import use_backend
from uqabench.kernels.backend import available

from ..cases import RAGGED, case, offsets_of
from ..conftest import TOLERANCES, assert_close, outputs_and_gradients, reference_results
from .interpreter import mend_interpreter

mend_interpreter()

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def gpu_results(backend: str, call, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`outputs_and_gradients` of `backend` on DEVICE, brought back to the CPU."""
    with use_backend(backend):
        results = outputs_and_gradients(call, {name: x.to(DEVICE) for name, x in inputs.items()})
    return {name: x.cpu() for name, x in results.items()}


def assert_case_matches(
    name: str, backend: str, lengths: Sequence[int] = RAGGED, dtype: torch.dtype = torch.float32, seed: int = 0
) -> None:
    """The operator's example (tests/kernels/cases.py) on `backend` agrees with the reference, with all gradients."""
    example = case(name, lengths, dtype, seed)
    offsets = offsets_of(lengths)

    def call(**arrays: Tensor):
        return example.run(offsets.to(next(iter(arrays.values())).device), **arrays)

    expected = reference_results(call, example.arrays)
    assert_close(gpu_results(backend, call, example.arrays), expected, TOLERANCES[dtype])


def gpu_backends(name: str) -> list[str]:
    return [backend for backend in ("triton", "cuda") if available(name, DEVICE).get(backend, "none") is None]
