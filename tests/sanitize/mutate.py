"""Recorded kernel calls with some arguments made wrong. With NumPy alone, so that it runs beside a sanitizer too.

The module must refuse what it cannot take with a ValueError or TypeError: `fuzz` raises AssertionError otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .replay import Call

DTYPES = ("f4", "f8", "f2", "i8", "i4", "u1", "?", "c8", ">f4", ">i8", "O")
OBJECTS = (None, 1, -1.5, "x", [1.0], [[1.0]], (), object(), np.float32(1))
NUMBERS = (0, 1, -1, 7, 2**31 - 1, 2**31, 2**62, 2**63, -(2**63), 10**400, 0.5, 1e300, float("nan"), -float("inf"))
SIZES = (-(2**63), -(2**31), -5, -1, 0, 1, 2, 3, 100, 2**31, 2**62, 2**63 - 1)


def _resize(x: np.ndarray, pick: random.Random) -> np.ndarray:
    shape = list(x.shape) or [1]
    i = pick.randrange(len(shape))
    shape[i] = pick.choice((0, 1, max(0, shape[i] - 1), shape[i] + 1, 2 * shape[i]))
    return np.resize(x, shape) if x.size else np.zeros(shape, x.dtype)


def _another_rank(x: np.ndarray, pick: random.Random) -> np.ndarray:
    return pick.choice(
        (x[None], x[..., None], x.ravel(), np.zeros((), x.dtype), x[0] if x.ndim and len(x) else x[None])
    )


def _steps(x: np.ndarray, pick: random.Random) -> np.ndarray:
    """The same shape, every second element of some dimension of a larger array."""
    if not x.ndim:
        return x
    axis = pick.randrange(x.ndim)
    return np.repeat(x, 2, axis)[(slice(None),) * axis + (slice(None, None, 2),)]


def _backwards(x: np.ndarray, pick: random.Random) -> np.ndarray:
    return np.flip(x, pick.randrange(x.ndim)) if x.ndim else x


def _column_major(x: np.ndarray, pick: random.Random) -> np.ndarray:
    return pick.choice((np.asfortranarray(x), x.T))


def _repeated(x: np.ndarray, pick: random.Random) -> np.ndarray:
    """One row for all, by a stride of 0."""
    return np.broadcast_to(x[:1], x.shape) if x.ndim and len(x) else x


def _unaligned(x: np.ndarray, pick: random.Random) -> np.ndarray:
    if x.dtype.hasobject:  # NumPy moves no references
        return x
    memory = np.zeros(x.nbytes + 1, np.uint8)
    y = memory[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def _read_only(x: np.ndarray, pick: random.Random) -> np.ndarray:
    y = x.copy()
    y.flags.writeable = False
    return y


def _overlapping(x: np.ndarray, pick: random.Random) -> np.ndarray:
    """Rows that share memory with the next."""
    if x.ndim < 2 or x.size < 2 or not x.flags.c_contiguous:
        return x
    return as_strided(x, x.shape, (x.itemsize, *x.strides[1:])) if x.shape[0] <= x.shape[-1] else x


def _values(x: np.ndarray, pick: random.Random) -> np.ndarray:
    y = x.copy()
    if y.size and y.dtype.kind in "if":
        choices: Any = (np.nan, np.inf, -np.inf, 3e38, 0.0, -0.0, 1e-45)
        if y.dtype.kind == "i":
            choices = [size for size in SIZES if np.iinfo(y.dtype).min <= size <= np.iinfo(y.dtype).max]
        for _ in range(pick.randint(1, 3)):
            y.ravel()[pick.randrange(y.size)] = pick.choice(choices)
    return y


def _another_dtype(x: np.ndarray, pick: random.Random) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x.astype(pick.choice(DTYPES))


CHANGES: tuple[Callable[[np.ndarray, random.Random], Any], ...] = (
    _resize, _resize, _another_rank, _steps, _backwards, _column_major, _repeated, _unaligned, _read_only, _overlapping,
    _values, _values, _another_dtype, lambda x, pick: pick.choice(OBJECTS), lambda x, pick: x.tolist(),
)  # fmt: skip


def _changed(x: Any, pick: random.Random) -> Any:
    if isinstance(x, np.ndarray):
        return pick.choice(CHANGES)(x, pick)
    return pick.choice(NUMBERS) if pick.random() < 0.8 else pick.choice(OBJECTS)


def fuzz(module: ModuleType, call: Call, seed: int) -> None:
    """Makes the call with one to three arguments changed."""
    pick = random.Random(seed)
    arguments, settings = call.restore()
    for _ in range(pick.randint(1, 3)):
        place: Any = pick.choice([*range(len(arguments)), *settings])
        holder: Any = arguments if isinstance(place, int) else settings
        holder[place] = _changed(holder[place], pick)
    if type(settings.get("threads")) is int:
        settings["threads"] = min(settings["threads"], 64)
    try:
        getattr(module, call.function)(*arguments, **settings)
    except (ValueError, TypeError) as error:
        assert str(error), f"{call.function} raised {error!r} without a word"
    except Exception as error:
        raise AssertionError(f"{call.function} raised {error!r}") from error
