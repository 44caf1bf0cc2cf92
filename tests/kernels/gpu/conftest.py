"""Every GPU kernel against its operator's reference: on the GPU where there is one, else interpreted on CPU tensors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from uqabench.kernels import use_backend
from uqabench.kernels.backend import available

from ..cases import RAGGED, case, offsets_of
from ..conftest import TOLERANCES, assert_close, outputs_and_gradients, reference_results

interpreter = pytest.importorskip("triton.runtime.interpreter")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _index_scalars_of_newer_numpy() -> None:
    """Before 3.8, triton's interpreter turns arrays of one element into integers as NumPy 2.4 no longer does."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def _products_of_bf16() -> None:
    """Triton's interpreter holds bf16 as bits and would multiply those: it gets their values, exact in fp32."""
    create_dot = interpreter.InterpreterBuilder.create_dot

    def widened(x):
        is_bf16 = x.dtype.scalar == interpreter.tl.bfloat16
        return interpreter.TensorHandle(_values_of(x.data), interpreter.tl.float32) if is_bf16 else x

    def patched(self, a, b, *others):
        return create_dot(self, widened(a), widened(b), *others)

    interpreter.InterpreterBuilder.create_dot = patched


def _values_of(bits):
    return (bits.astype("uint32") << 16).view("float32")


def _patches_without_a_search() -> None:
    """Every call of a jitted function searches all of triton.language for what it patches: a fifth of these tests."""
    is_builtin = interpreter.tl.core.is_builtin

    @cache
    def candidates(package) -> list[str]:
        return [name for name, member in inspect.getmembers(package) if is_builtin(member)]

    def patched(package, builder, scope) -> None:
        for name in candidates(package):
            if is_builtin(member := getattr(package, name)):
                interpreter._patch_attr(package, name, member, builder, scope)

    interpreter._patch_builtin = patched


def _types_without_a_table() -> None:
    """NumPy's type of a Triton type is asked 200,000 times here, and each time a table of all types is built."""
    find = interpreter._get_np_dtype
    of_scalar = cache(find)
    tl = interpreter.tl

    def patched(dtype):
        scalar = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
        return (find if isinstance(scalar, tl.pointer_type) else of_scalar)(scalar)

    interpreter._get_np_dtype = patched


_index_scalars_of_newer_numpy()
_products_of_bf16()
_patches_without_a_search()
_types_without_a_table()


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
