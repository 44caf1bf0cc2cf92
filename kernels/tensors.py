"""Predicates of tensors that the compiled module evaluates (csrc/bindings/checks.cpp), where it can read torch's
tensors.

A tensor's shape, dtype and device take 1 to 3 us to read and compare in Python and 0.2 us there. An answer may be no
although nothing is wrong, and is always no without the module (or with torch before 2.10, which does not describe its
tensors to others): then Python checks again, and says what is wrong.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .backend import native_module

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64)  # in the order of DType there


def as_array(x: Tensor) -> np.ndarray:
    """NumPy's view of a CPU tensor's memory; of bf16, which NumPy lacks, as uint16."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype is torch.bfloat16 else x).numpy()


def _introduced() -> ModuleType | None:
    """The module's functions once it has learnt what torch's tensors are; None if it cannot."""
    description = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if description is None:
        return None
    try:
        module = native_module().tensors
        module.learn(Tensor, torch.nn.Parameter, _DTYPES, description)
    except (RuntimeError, ValueError):
        return None
    return module


def _no(*_: Any) -> bool:
    return False


def _are_plain(args: tuple[Any, ...]) -> bool:
    return all(type(x) in (Tensor, torch.nn.Parameter) for x in args if isinstance(x, Tensor))


def _want_gradients(args: tuple[Any, ...]) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in args)


_module = _introduced()
KNOWN = _module is not None
"""Whether the module's kernels take tensors as they are; else they get `as_array` of them."""

fits = _module.fits if KNOWN else _no
are_rows = _module.are_rows if KNOWN else _no
are_alike = _module.are_alike if KNOWN else _no
fit_like = _module.fit_like if KNOWN else _no
do_rise = _module.do_rise if KNOWN else _no
do_lie_below = _module.do_lie_below if KNOWN else _no
are_plain = _module.are_plain if KNOWN else _are_plain
want_gradients = _module.want_gradients if KNOWN else _want_gradients
