"""How the compiled module's functions become operators of torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

from .backend import native_module
from .tensors import KNOWN, are_plain, as_array, want_gradients

_count_dispatch_modes = torch._C._len_torch_dispatch_stack
_find_transform = torch._C._functorch.peek_interpreter_stack
_count_threads, _empty_like, _CONTIGUOUS = torch.get_num_threads, torch.empty_like, torch.contiguous_format


ROW_DTYPES = (torch.float32, torch.bfloat16)
"""What the kernels that work row by row take."""


def call(function: str, *arguments: Tensor | float | None) -> None:
    """Runs `uqabench._native.FUNCTION` in place on the memory of CPU tensors, with torch's number of threads.

    `arguments` are all but the last one, the threads, in the function's order: pybind11 takes 1 us more for names.
    """
    if not KNOWN:
        arguments = tuple(as_array(x) if isinstance(x, Tensor) else x for x in arguments)
    getattr(native_module(), function)(*arguments, _count_threads())


def uninitialised(x: Tensor) -> Tensor:
    """A contiguous uninitialised tensor of x's shape, for a kernel that writes all of it."""
    return _empty_like(x, memory_format=_CONTIGUOUS)


def empty_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Such a tensor for each of `tensors`."""
    return tuple([_empty_like(x, memory_format=_CONTIGUOUS) for x in tensors])


def empty_norm(x: Tensor, statistics: int) -> tuple[Tensor, Tensor]:
    """Uninitialised tensors for a norm's output and for the statistics of its rows, (statistics, rows) float32."""
    return uninitialised(x), x.new_empty(statistics, x.numel() // x.shape[-1], dtype=torch.float32)


def _complete(results: Any) -> Any:
    """Results as torch.library allows them: an empty tensor instead of each None of a tuple."""
    if not isinstance(results, tuple):
        return results
    return tuple([results[0].new_empty(0) if x is None else x for x in results])


def _completed(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def complete(*args: Any, **settings: Any) -> Any:
        return _complete(function(*args, **settings))

    return complete


class NativeOp:
    """A `torch.library` custom operator that is called without torch's dispatcher where nobody traces.

    The operator is `torch.ops.uqabench.NAME`, opaque to torch.compile and torch.export, which see it whenever they
    trace. Otherwise the dispatcher would only call the same Python function, which takes it about 30 us, and a backward
    pass registered with it takes about 100 us more than an autograd.Function.

    All results of a function but the first may be None where the arguments say that they are not wanted. The operator,
    and what sets up its gradient, has an empty tensor there, which takes torch 1 us to make.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.function = function
        self.op = torch.library.custom_op(f"uqabench::{name}", _completed(function), mutates_args=())
        self._autograd: type[torch.autograd.Function] | None = None

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates the function that gives the outputs' shapes and dtypes without computing them."""
        self.op.register_fake(_completed(fake))
        return fake

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[[Any, tuple[Any, ...], Any], None]
    ) -> None:
        """As `torch.library.register_autograd`; the gradient itself cannot be differentiated."""
        self.op.register_autograd(backward, setup_context=setup_context)
        function = self.function

        def forward(ctx: Any, *args: Any) -> Any:
            output = _complete(function(*args))
            setup_context(ctx, args, output)
            return output

        members = {"forward": staticmethod(forward), "backward": staticmethod(once_differentiable(backward))}
        self._autograd = type(function.__name__, (torch.autograd.Function,), members)

    def __call__(self, *args: Any) -> Any:
        if is_compiling() or is_traced(args):
            return self.op(*args)
        if self._autograd is not None and torch.is_grad_enabled() and want_gradients(args):
            return self._autograd.apply(*args)
        return self.function(*args)


def native_op(name: str) -> Callable[[Callable[..., Any]], NativeOp]:
    """Makes the decorated function, which changes none of its arguments, the operator `uqabench::NAME`."""
    return lambda function: NativeOp(name, function)


def is_traced(args: tuple[Any, ...]) -> bool:
    """Whether something other than autograd has to see the call: a tracing mode, a transform, or a tensor subclass."""
    return _count_dispatch_modes() > 0 or _find_transform() is not None or not are_plain(args)
