"""How torch.compile and torch.export treat a function, said without importing torch's compiler.

`torch.compiler`'s own decorators import torch._dynamo when they decorate, which doubles the time of `import torch` for
programs that compile nothing. These wait until something traces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch._compile import _disable_dynamo
from torch.compiler import is_compiling

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def constant_when_traced(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Tracing calls `function`, does not look into it, and takes its result as a constant: as
    `torch.compiler.assume_constant_result`."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # all that torch's decorator does
    return function


def never_traced(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` ends the graph that is being traced and runs as plain Python: as `torch.compiler.disable`."""

    disabled = _disable_dynamo(function)  # torch.compiler.disable at the first call: what torch's own modules use

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return disabled(*args, **kwargs) if is_compiling() else function(*args, **kwargs)

    return call
