"""What Triton's interpreter lacks for these kernels, or does slowly."""

from __future__ import annotations

import inspect
from functools import cache

import pytest

interpreter = pytest.importorskip("triton.runtime.interpreter")


@cache
def mend_interpreter() -> None:
    """Once a process: the patches below."""
    _index_scalars_of_newer_numpy()
    _products_of_bf16()
    _patches_without_a_search()
    _types_without_a_table()


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
