"""Which implementation of an operator runs.

Backends are "reference" (float64 loops: the specification), "eager" (plain torch), "native" (C++ on CPU), "triton"
and "cuda". The choice for a call is, in this order: the innermost `use_backend(...)` of this thread or task, the
environment variable UQABENCH_BACKEND, the operator's default for the tensors' device. The first two are requests:
one that cannot be met raises a RuntimeError that says why. A default that cannot run (no compiled module, a dtype
that it lacks) gives way to "eager", and `status()` says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .tracing import constant_when_traced

BACKENDS = ("reference", "eager", "native", "triton", "cuda")
ENVIRONMENT_VARIABLE = "UQABENCH_BACKEND"

_requested: ContextVar[str | None] = ContextVar("uqabench_backend", default=None)
_operators: dict[str, Operator] = {}


@cache
def _import_native() -> tuple[ModuleType | None, str | None]:
    try:
        return importlib.import_module("uqabench._native"), None
    except ImportError as error:
        return None, f"the compiled module uqabench._native cannot be imported ({error})"


def native_module() -> ModuleType:
    """The compiled module `uqabench._native`; RuntimeError with the import's own message where there is none."""
    module, problem = _import_native()
    if module is None:
        raise RuntimeError(f"{problem}; reinstall with `pip install .` on a machine with a C++20 compiler.")
    return module


def unavailable(backend: str, device: str) -> str | None:
    """Why `backend` cannot run on device type `device` ("cpu", "cuda") here, whatever the operator; None if it can."""
    if backend in ("reference", "eager"):
        return None
    if backend == "native":
        return "it runs on CPU tensors only" if device != "cpu" else _import_native()[1]
    if backend == "triton":
        if importlib.util.find_spec("triton") is None:
            return "the package 'triton' is not installed"
        if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return "it runs on CUDA tensors only, or on CPU tensors under TRITON_INTERPRET=1"
        return None
    if device != "cuda":
        return "it runs on CUDA tensors only"
    module, problem = _import_native()
    if module is None:
        return problem
    return _cuda_problem(module)


@cache
def _cuda_problem(module: ModuleType) -> str | None:
    """A driver runs what was compiled with its own major version of CUDA or an older one
    (https://docs.nvidia.com/deploy/cuda-compatibility/). Without a driver the answer is None."""
    if not getattr(module, "has_cuda", False):
        return "uqabench._native was compiled without CUDA"
    compiled, driver = (version // 1000 for version in module.cuda_versions())
    if 0 < driver < compiled:
        return f"uqabench._native was compiled with CUDA {compiled}, and the driver takes CUDA {driver} at most"
    return None


def check_backend_name(name: str, origin: str) -> str:
    """`name` if it is one of BACKENDS; otherwise a ValueError that names `origin` and the choices."""
    if name not in BACKENDS:
        raise ValueError(f"{origin} is {name!r}, which is no backend: choose one of {', '.join(BACKENDS)}.")
    return name


def requested_backend() -> str | None:
    """The backend asked for by `use_backend` or else by UQABENCH_BACKEND; None if neither is set."""
    name = _requested.get()
    if name is not None:
        return name
    name = os.environ.get(ENVIRONMENT_VARIABLE)
    return check_backend_name(name, f"the environment variable {ENVIRONMENT_VARIABLE}") if name else None


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, and in this thread or asyncio task only, every operator runs on backend `name`.

    "reference" and "eager" exist for every operator; another name is a RuntimeError at the first operator that lacks
    it or cannot run it. A `torch.compile`d function keeps the choice that it was traced with.
    """
    token = _requested.set(check_backend_name(name, "use_backend's name"))
    try:
        yield
    finally:
        _requested.reset(token)


@dataclass(frozen=True)
class Operator:
    """One operator's implementations, all with one signature.

    `default` maps a device type to the backend that runs unasked; `dtypes` lists, for backends that do not take every
    floating dtype, those they do.
    """

    name: str
    backends: Mapping[str, Callable[..., Any]]
    default: Mapping[str, str] = field(default_factory=lambda: {"cpu": "eager", "cuda": "eager"})
    dtypes: Mapping[str, tuple[torch.dtype, ...]] = field(default_factory=dict)
    # Where "native" can run, which never changes: checking again would take 0.5 us a call.
    _native_for: set[tuple[str, torch.dtype | None]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (*self.backends, *self.default.values(), *self.dtypes):
            check_backend_name(name, f"a backend of {self.name}")
        missing = {"reference", "eager", *self.default.values(), *self.dtypes} - set(self.backends)
        if missing:
            raise ValueError(f"operator {self.name} names but does not implement: {', '.join(sorted(missing))}.")
        _operators[self.name] = self

    def problem(self, backend: str, device: str, dtype: torch.dtype | None = None) -> str | None:
        """Why `backend` cannot run this operator on tensors of that device type and dtype; None if it can."""
        if backend not in self.backends:
            return f"{self.name} has no such implementation (it has {', '.join(self.backends)})"
        reason = unavailable(backend, device)
        if reason is None and dtype is not None and dtype not in self.dtypes.get(backend, (dtype,)):
            names = " or ".join(str(d).removeprefix("torch.") for d in self.dtypes[backend])
            reason = f"it takes {names}, not {str(dtype).removeprefix('torch.')}"
        return reason

    def choose(self, device: str, dtype: torch.dtype | None = None) -> str:
        """The backend for tensors of that device type ("cpu", "cuda") and dtype, by the order in the module's text."""
        return _choose(self.name, device, dtype)

    def __call__(self, device: str, dtype: torch.dtype | None = None) -> Callable[..., Any]:
        """The implementation that `choose` picks: `op("cpu", torch.float32)(x, ...)`."""
        return self.backends[_choose(self.name, device, dtype)]

    def of(self, x: Tensor) -> Callable[..., Any]:
        """As above, for x's device and dtype."""
        return self("cpu" if x.is_cpu else x.device.type, x.dtype)  # `type` takes 0.4 us to build a string


@constant_when_traced  # because a ContextVar cannot be traced
def _choose(operator: str, device: str, dtype: torch.dtype | None) -> str:
    op = _operators[operator]
    name = requested_backend()
    if name is not None:
        reason = op.problem(name, device, dtype)
        if reason is not None:
            raise RuntimeError(f"backend '{name}' cannot run {operator} on {device}: {reason}.")
        return name
    if (device, dtype) in op._native_for:
        return "native"
    name = op.default.get(device, "eager")
    if op.problem(name, device, dtype) is not None:
        return "eager"
    if name == "native":
        op._native_for.add((device, dtype))
    return name


def choose(operator: str, device: str, dtype: torch.dtype | None = None) -> str:
    """Name of the backend that would run `operator` (by name) on that device type and dtype."""
    return _operator(operator).choose(device, dtype)


def available(operator: str, device: str = "cpu") -> dict[str, str | None]:
    """Every backend with the reason that it cannot run `operator` on that device type; None where it can."""
    op = _operator(operator)
    return {name: op.problem(name, device) for name in BACKENDS}


def status() -> dict[str, dict[str, Any]]:
    """For every operator: its backends, and per device the one that runs now and why the others cannot.

    `{operator: {"backends": [...], "cpu": {"runs": name | None, "unavailable": {backend: reason}}, "cuda": {...}}}`;
    "runs" is None where a requested backend cannot be met.
    """
    report: dict[str, dict[str, Any]] = {}
    for name, op in sorted(_operators.items()):
        report[name] = {"backends": list(op.backends)}
        for device in ("cpu", "cuda"):
            reasons = {b: reason for b in op.backends if (reason := op.problem(b, device)) is not None}
            request = requested_backend()
            runs = None if request and op.problem(request, device) else op.choose(device)
            report[name][device] = {"runs": runs, "unavailable": reasons}
    return report


def _operator(name: str) -> Operator:
    if name not in _operators:
        raise ValueError(f"operator {name!r} is unknown: known are {', '.join(sorted(_operators))}.")
    return _operators[name]
