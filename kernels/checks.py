"""The argument checks of the operators: each raises a TypeError or ValueError that names the argument.

Values that Python reads (offsets, indices) are read once for each tensor and remembered on it (memory.py), so that a
model of many layers pays for one read, which on CUDA is a synchronisation, per batch, and for none where the host
packed the tensor and said what it holds (`know_offsets`, `know_bounds`). While torch.compile traces or a CUDA graph is
captured, shapes and dtypes are checked and values are not. NaN and infinity are not checked for: they propagate within
their own sequence and never into another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_compiling

from .memory import is_captured, known, remember

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return " or ".join(str(d).removeprefix("torch.") for d in dtypes)


def check_tensor(x: Any, name: str, shape: Sequence[int | None], dtypes: Sequence[torch.dtype] = FLOATING) -> None:
    """`x` is a dense tensor of `shape` (None: any size) and one of `dtypes`, its last dimension contiguous."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(x).__name__}.")
    if x.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, not one of layout {str(x.layout).removeprefix('torch.')}.")
    if not _fits(x.shape, shape):
        wanted = ", ".join("*" if size is None else str(size) for size in shape)
        comma = "," if len(shape) == 1 else ""
        raise ValueError(f"{name} must have shape ({wanted}{comma}), not {tuple(x.shape)}.")
    if x.dtype not in dtypes:
        raise TypeError(f"{name} must be {_names(dtypes)}, not {_names([x.dtype])}.")
    if x.ndim and x.shape[-1] > 1 and x.stride(-1) != 1:
        raise ValueError(f"{name} must be contiguous in its last dimension: pass {name}.contiguous().")


def _fits(got: Sequence[int], wanted: Sequence[int | None]) -> bool:
    if len(got) != len(wanted):
        return False
    for a, b in zip(got, wanted, strict=True):  # any(...) over a generator takes four times as long
        if b is not None and a != b:
            return False
    return True


def check_heads(x: Any, name: str, shape: Sequence[int | None] = (None, None, None)) -> None:
    """`x` is a floating tensor (T, H, D) with at least one head and one component, its last dimension contiguous."""
    check_tensor(x, name, shape)
    _, heads, width = x.shape
    if heads == 0 or width == 0:
        raise ValueError(f"{name} must have at least one head and one component, not shape {tuple(x.shape)}.")


def check_rows(x: Any, name: str) -> None:
    """`x` is a floating tensor (..., d) with d >= 1, its last dimension contiguous."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(x).__name__}.")
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"{name} must have shape (..., d) with d >= 1, not {tuple(x.shape)}.")
    check_tensor(x, name, x.shape)


def check_same(first: Tensor, first_name: str, *, dtype: bool = True, **others: Tensor | None) -> None:
    """Every tensor in `others` (None: absent) lies on `first`'s device and, if `dtype`, has its dtype."""
    for name, x in others.items():
        if x is None:
            continue
        if x.device != first.device:
            raise ValueError(f"{name} is on {x.device}, but {first_name} is on {first.device}.")
        if dtype and x.dtype != first.dtype:
            raise TypeError(f"{name} is {_names([x.dtype])}, but {first_name} is {_names([first.dtype])}.")


def check_like(
    first: Tensor,
    first_name: str,
    dtypes: tuple[torch.dtype, ...] | None = None,
    /,
    **others: tuple[Any, tuple[int | None, ...]] | None,
) -> None:
    """Every tensor in `others` has the shape that it is given with and the dtype of `first`, or one of `dtypes`, and
    lies on its device; None instead of (tensor, shape): absent. As `check_tensor` and `check_same`; `first` is checked
    already."""
    given = {name: pair for name, pair in others.items() if pair is not None}
    for name, (x, shape) in given.items():
        check_tensor(x, name, shape, FLOATING if dtypes is None else dtypes)
    check_same(first, first_name, dtype=dtypes is None, **{name: x for name, (x, _) in given.items()})


def check_offsets(offsets: Any, tokens: Tensor, name: str = "offsets") -> None:
    """`offsets` (B+1,), int64 on the device of `tokens`, is monotone from 0 to `tokens.shape[0]`."""
    check_tensor(offsets, name, (None,), (torch.int64,))
    check_same(tokens, "the input", dtype=False, **{name: offsets})
    if offsets.shape[0] < 1:
        raise ValueError(f"{name} must have at least one entry: B sequences have B + 1 offsets.")
    if are_values_hidden(offsets):
        return
    if offsets.is_meta:
        raise ValueError(f"{name} is on the device meta, where it has no values.")
    if known(offsets, "rises to") == tokens.shape[0]:
        return
    check_rising(host_array(offsets), tokens.shape[0], name)


def check_rising(values: np.ndarray, tokens: int, name: str = "offsets") -> None:
    """The host's int64 offsets (B+1,) are monotone from 0 to `tokens`; a ValueError names the first that is not."""
    if values[0] != 0:
        raise ValueError(f"{name} must begin with 0, not {values[0]}.")
    falls = np.flatnonzero(values[1:] < values[:-1])
    if len(falls):
        i = int(falls[0])
        raise ValueError(f"{name} must not fall: {name}[{i + 1}] = {values[i + 1]} after {values[i]}.")
    if values[-1] != tokens:
        raise ValueError(f"{name} must end at the number of tokens, {tokens}, not at {values[-1]}.")


def are_values_hidden(x: Tensor) -> bool:
    """Whether `x` has no values yet (torch.compile traces) or none to wait for (a CUDA graph is captured)."""
    return is_compiling() or is_captured(x)


def host_array(offsets: Tensor) -> np.ndarray:
    """The offsets as the host's array int64 (B+1,), read once a tensor, not at all where the host packed them."""
    return remember(offsets, "values", lambda: offsets.numpy(force=True), on_host=True)


def host_offsets(offsets: Tensor) -> list[int]:
    """The offsets as Python integers (see `host_array`)."""
    return remember(offsets, "offsets", lambda: host_array(offsets).tolist(), on_host=True)


def host_lengths(offsets: Tensor) -> list[int]:
    """The sequences' lengths as Python integers (see `host_array`)."""
    return np.diff(host_array(offsets)).tolist()


def host_longest(offsets: Tensor) -> int:
    """The longest sequence's length, 0 without sequences (see `host_array`)."""
    return remember(offsets, "longest", lambda: int(np.diff(host_array(offsets)).max(initial=0)), on_host=True)


def check_indices(ids: Tensor, size: int, name: str, ignored: int | None = None) -> None:
    """Every value of the integer tensor `ids` except `ignored` lies in [0, size). The bounds of long tensors are
    cached."""
    if are_values_hidden(ids) or ids.numel() == 0:
        return
    given = known(ids, "bounds")
    if given is not None and given[0] >= 0 and given[1] < size:
        return
    bounds = remember(
        ids, f"bounds {ignored}", lambda: _bounds(ids if ignored is None else ids[ids != ignored]), on_host=True
    )
    if bounds and (bounds[0] < 0 or bounds[1] >= size):
        raise ValueError(f"{name} must lie in [0, {size}), but holds {bounds[0] if bounds[0] < 0 else bounds[1]}.")


def _bounds(ids: Tensor) -> list[int]:
    """The least and the greatest value, nothing for an empty tensor."""
    return torch.stack(torch.aminmax(ids)).tolist() if ids.numel() else []


def check_positive(value: Any, name: str, *, integer: bool = False) -> None:
    """`value` is a finite number above 0, an int if `integer`."""
    if integer and not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}.")
    check_finite(value, name)
    if not is_compiling() and value <= 0:
        raise ValueError(f"{name} must be above 0, not {value}.")


def check_count(value: Any, name: str) -> None:
    """`value` is an int of 32 bits and at least 0."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}.")
    if is_compiling():
        return
    if value < 0:
        raise ValueError(f"{name} must be 0 or above, not {value}.")
    if value >= 2**31:
        raise ValueError(f"{name} must be below 2**31.")


def check_flag(value: Any, name: str) -> None:
    """`value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}.")


def check_finite(value: Any, name: str) -> None:
    """`value` is a finite number."""
    if type(value) is float and not is_compiling() and math.isfinite(value):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}.")
    if not is_compiling() and not _is_finite(value):
        raise ValueError(f"{name} must be finite, not {value}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False
