"""How an operator is declared: once, for all of its compiled backends.

A folder's `operator.py` says what a call returns (`outputs`: shapes and dtypes, no values), which gradients there are
(`gradients`, alike), and what a backend takes. The modules of that folder that are named like backends ("native",
"triton", "cuda") supply `forward` and `backward`, with the same arguments and results. From that come the operators of
torch, opaque to torch.compile and torch.export, their fake kernels and their autograd, and the choice of a backend.

Arguments have one order, from the operator's signature to the kernels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling
from torch.nn import Parameter

from .backend import Operator

_count_dispatch_modes = torch._C._len_torch_dispatch_stack
_find_transform = torch._C._functorch.peek_interpreter_stack

ALL_BUT_DOUBLE = (torch.float32, torch.bfloat16, torch.float16)
SINGLE_AND_BF16 = (torch.float32, torch.bfloat16)
SINGLE = (torch.float32,)

_SCHEMA_TYPES = {
    "Tensor": "Tensor",
    "Tensor | None": "Tensor?",
    "bool": "bool",
    "float": "float",
    "int": "SymInt",
    "list[bool]": "bool[]",
    "torch.dtype": "ScalarType",
    "str": "str",
}


class Kernel:
    """An operator of torch, `torch.ops.uqabench.NAME`, whose last argument names the backend that computes it.

    It is called as `kernel(backend, *arguments)`, and past torch's dispatcher where nobody traces: the dispatcher would
    find the same function again, which takes it about 30 us, and a backward pass registered with it takes about 100 us
    more than an autograd.Function.

    Results but the first may be None where the arguments say that they are not wanted; the operator of torch has an
    empty tensor there.

    Args:
        name: of the operator of torch.
        package: of the modules that implement it, `PACKAGE.BACKEND`, imported when one first runs.
        outputs: makes the results without their values. Its annotations are the operator's schema. A parameter `keep`
            is no argument of a call: it says whether a gradient will be asked for.
        function: its name in those modules.
        results: names of the results that a call returns.
        kept: names of the further results, which the gradient needs.
        gradients: makes the gradients without their values; the modules' `backward` computes them, as the operator
            `NAME_backward`. Its parameters are found by their names: `grad_RESULT` is the gradient of a result (None
            where there is none, if its annotation allows that), `needs_INPUT` says whether an input's gradient is
            wanted, and results, inputs and `backend` go by their own names. What it does not name is not saved.
        differentiate: instead of `gradients`, a function with such parameters that computes them in plain torch.
        of: names of the inputs whose gradients those are, in their order.
    """

    def __init__(
        self,
        name: str,
        package: str,
        outputs: Callable[..., Any],
        *,
        function: str = "forward",
        results: Sequence[str] = ("y",),
        kept: Sequence[str] = (),
        gradients: Callable[..., Any] | None = None,
        differentiate: Callable[..., Any] | None = None,
        of: Sequence[str] = (),
    ) -> None:
        parameters = inspect.signature(outputs).parameters
        self.inputs = tuple(x for x in parameters if x != "backend")
        self.results = (*results, *kept)
        self.returned = len(results)
        self._returned = None if not kept else 0 if len(results) == 1 else slice(len(results))
        self._keeps = "keep" in parameters
        self._functions = _Functions(package, function)
        self._fake = outputs if "backend" in parameters else _without_backend(outputs)
        self.op = torch.library.custom_op(
            f"uqabench::{name}", self._dispatched, mutates_args=(), schema=_schema(parameters, len(self.results))
        )
        self.op.register_fake(self._faked)
        self._autograd: type[torch.autograd.Function] | None = None
        if gradients is not None:
            backward = Kernel(f"{name}_backward", package, gradients, function="backward", results=("",) * len(of))
            differentiate = backward.with_backend_last
            named = (*backward.inputs, "backend")
        elif differentiate is not None:
            named = tuple(inspect.signature(differentiate).parameters)
        else:
            return
        self._differentiate_by(_Gradient(self, parameters, named, differentiate, of, gradients))

    def __call__(self, backend: str, *args: Any) -> Any:
        is_seen = is_compiling() or is_traced(args)
        is_trained = False
        if self._autograd is not None and torch.is_grad_enabled():
            is_trained = any(isinstance(x, Tensor) and x.requires_grad for x in args)
        if self._keeps:
            args = (*args, is_trained)
        if is_seen:
            results = self.op(*args, backend)
        elif is_trained:
            results = self._autograd.apply(*args, backend)
        else:
            results = self._functions[backend](*args)
        return results if self._returned is None else results[self._returned]

    def with_backend_last(self, *args: Any) -> Any:
        """`__call__`, with the arguments as the operator of torch has them."""
        return self(args[-1], *args[:-1])

    def _dispatched(self, *args: Any) -> Any:
        return _complete(self._functions[args[-1]](*args[:-1]), args)

    def _faked(self, *args: Any) -> Any:
        return _complete(self._fake(*args), args)

    def _differentiate_by(self, gradient: _Gradient) -> None:
        self.op.register_autograd(gradient.backward, setup_context=gradient.save)
        functions = self._functions

        def forward(ctx: Any, *args: Any) -> Any:
            results = functions[args[-1]](*args[:-1])
            gradient.save(ctx, args, results)
            return results

        members = {"forward": staticmethod(forward), "backward": staticmethod(once_differentiable(gradient.backward))}
        self._autograd = type(self.op._name, (torch.autograd.Function,), members)


class _Functions(dict[str, Callable[..., Any]]):
    """The function of that name of each backend's module, imported when it first runs."""

    def __init__(self, package: str, name: str) -> None:
        super().__init__()
        self.package, self.name = package, name

    def __missing__(self, backend: str) -> Callable[..., Any]:
        found = self[backend] = getattr(import_module(f"{self.package}.{backend}"), self.name)
        return found


class _Gradient:
    """What a kernel saves for its gradient, and how that is computed from it."""

    def __init__(
        self,
        kernel: Kernel,
        parameters: Mapping[str, inspect.Parameter],
        named: Sequence[str],
        differentiate: Callable[..., Any],
        of: Sequence[str],
        gradients: Callable[..., Any] | None,
    ) -> None:
        inputs = (*kernel.inputs, "backend")
        places = {name: i for i, name in enumerate((*inputs, *kernel.results))}
        is_tensor = {name: "Tensor" in str(x.annotation) for name, x in parameters.items()}
        grads = [f"grad_{name}" for name in kernel.results]
        needs = [f"needs_{name}" for name in inputs]
        tensors = [name for name in named if name in places and is_tensor.get(name, name != "backend")]
        constants = [name for name in named if name in places and name not in tensors]
        pool = {name: i for i, name in enumerate((*grads, *tensors, *constants, *needs))}
        self._tensors = _pick([places[name] for name in tensors])
        self._constants = _pick([places[name] for name in constants])
        self._arguments = _pick([pool[name] for name in named])
        self._name = kernel.op._name
        self._of = tuple(inputs.index(name) for name in of)
        self._count = len(inputs)
        self._differentiate = differentiate
        self._keep_at = inputs.index("keep") if "keep" in inputs else None
        # Results whose gradient the function takes as zeros where there is none. A single one is never missing.
        given = inspect.signature(gradients or differentiate).parameters
        named_here = [(i, given[name].annotation) for i, name in enumerate(grads) if name in given]
        self._zeros = [i for i, kind in named_here if kind == "Tensor" and kernel.returned > 1]
        self._optional = [i for i, kind in named_here if kind != "Tensor"]

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if self._keep_at is not None and not inputs[self._keep_at]:
            raise RuntimeError(f"{self._name} has gradients only if it was told to keep what they need.")
        everything = (*inputs, *(output if isinstance(output, tuple) else (output,)))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*self._tensors(everything))
        ctx.constants = self._constants(everything)
        if self._zeros:
            ctx.like = [(output[i].shape, output[i].dtype, output[i].device) for i in self._zeros]

    def backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None] * self._count
        for i in self._optional:
            if grads[i] is not None and grads[i].shape == (0,):  # that of what stands for a result that is not wanted
                grads = (*grads[:i], None, *grads[i + 1 :])
        if grads[0] is None and all(x is None for x in grads):
            return tuple(found)
        for place, i in enumerate(self._zeros):
            if grads[i] is None:
                shape, dtype, device = ctx.like[place]
                grads = (*grads[:i], torch.zeros(shape, dtype=dtype, device=device), *grads[i + 1 :])
        needs = ctx.needs_input_grad
        results = self._differentiate(*self._arguments((*grads, *ctx.saved_tensors, *ctx.constants, *needs)))
        for i, gradient in zip(self._of, results if isinstance(results, tuple) else (results,), strict=True):
            if needs[i]:
                found[i] = gradient
        return tuple(found)


def declare(
    name: str,
    run: Callable[..., Any],
    dtypes: Mapping[str, tuple[torch.dtype, ...]],
    *,
    reference: Callable[..., Any],
    eager: Callable[..., Any] | None = None,
    default: Mapping[str, str] | None = None,
) -> Operator:
    """The operator `name`, whose compiled backends are `run(backend, *arguments)`.

    Args:
        run: a `Kernel`, or a function that calls one.
        dtypes: what each compiled backend takes.
        reference, eager: functions of the same arguments; eager None: `run` has that backend too.
        default: as in `Operator`; None: "native" on CPU, "triton" or "cuda" on CUDA, "eager" where it has none.
    """
    backends = {"reference": reference, "eager": eager or partial(run, "eager")}
    backends |= {backend: partial(run, backend) for backend in dtypes}
    if default is None:
        on_cuda = next((backend for backend in ("triton", "cuda") if backend in dtypes), "eager")
        default = {"cpu": "native" if "native" in dtypes else "eager", "cuda": on_cuda}
    return Operator(name, backends=backends, default=default, dtypes=dtypes)


def is_traced(args: tuple[Any, ...]) -> bool:
    """Whether something other than autograd has to see the call: a tracing mode, a transform, or a tensor subclass."""
    if _count_dispatch_modes() > 0 or _find_transform() is not None:
        return True
    return any(isinstance(x, Tensor) and type(x) not in (Tensor, Parameter) for x in args)


def _without_backend(outputs: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: outputs(*args[:-1])


def _complete(results: Any, args: tuple[Any, ...]) -> Any:
    """Results as torch.library allows them: an empty tensor instead of each None."""
    if not isinstance(results, tuple):
        return results
    if all(x is not None for x in results):
        return results
    like = next(x for x in (*results, *args) if isinstance(x, Tensor))
    return tuple([like.new_empty(0) if x is None else x for x in results])


def _schema(parameters: Mapping[str, inspect.Parameter], results: int) -> str:
    arguments = [f"{_SCHEMA_TYPES[x.annotation]} {name}" for name, x in parameters.items() if name != "backend"]
    returned = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    return f"({', '.join([*arguments, 'str backend'])}) -> {returned}"


def _pick(places: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """The entries of a tuple at those places, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda pool: tuple([pool[i] for i in places])
