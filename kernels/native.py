"""How the compiled module's functions become operators of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

from .backend import native_module
from .tensors import KNOWN, are_plain, want_gradients

_count_dispatch_modes = torch._C._len_torch_dispatch_stack
_find_transform = torch._C._functorch.peek_interpreter_stack


ROW_DTYPES = (torch.float32, torch.bfloat16) if KNOWN else (torch.float32,)
"""What the kernels that work row by row take: NumPy, in the tensors' place without KNOWN, has no bf16."""


def call(function: str, *tensors: Tensor | None, **settings: Any) -> None:
    """Runs `uqabench._native.FUNCTION` in place on the memory of CPU tensors, with torch's number of threads."""
    arrays = tensors if KNOWN else [None if x is None else x.detach().numpy() for x in tensors]
    getattr(native_module(), function)(*arrays, **settings, threads=torch.get_num_threads())


def empty_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    """A contiguous uninitialised tensor for each: what a kernel writes in full."""
    return tuple([torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors])


class NativeOp:
    """A `torch.library` custom operator that is called without torch's dispatcher where nobody traces.

    The operator is `torch.ops.uqabench.NAME`, opaque to torch.compile and torch.export, which see it whenever they
    trace. Else the dispatcher would only find the same Python function again, in about 30 us a call, and a backward
    pass registered with it takes about 100 us more than an autograd.Function.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.function = function
        self.op = torch.library.custom_op(f"uqabench::{name}", function, mutates_args=())
        self._autograd: type[torch.autograd.Function] | None = None

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates the function that gives the outputs' shapes and dtypes without computing them."""
        return self.op.register_fake(fake)

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[[Any, tuple[Any, ...], Any], None]
    ) -> None:
        """As `torch.library.register_autograd`; the gradient itself cannot be differentiated."""
        self.op.register_autograd(backward, setup_context=setup_context)
        function = self.function

        def forward(ctx: Any, *args: Any) -> Any:
            output = function(*args)
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
    """Something beside autograd wants to see the call: a tracing mode, a transform, or a tensor subclass."""
    return _count_dispatch_modes() > 0 or _find_transform() is not None or not are_plain(args)
