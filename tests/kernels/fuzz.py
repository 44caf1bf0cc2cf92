"""Random calls of every operator and of every function of the native module, many of them wrong.

`python -m tests.kernels.fuzz door|module COUNT FIRST_SEED JOURNAL` makes COUNT calls of each. The journal names the
call in progress, so that whoever started the process knows where it died.
"""

from __future__ import annotations

import inspect
import os
import random
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqabench import kernels
from uqabench.kernels import use_backend
from uqabench.kernels.backend import native_module
from uqabench.kernels.key_values import KeyValues

from ..sanitize.mutate import NUMBERS, OBJECTS, SIZES, fuzz
from ..sanitize.record import record
from .cases import GRU_PARTS, NAMES, OLD_TOKENS, Case, case, offsets_of

DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.cfloat,
)
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}


def _resize(x: Tensor, pick: random.Random) -> Tensor:
    shape = list(x.shape) or [1]
    i = pick.randrange(len(shape))
    shape[i] = pick.choice((0, 1, max(0, shape[i] - 1), shape[i] + 1, 2 * shape[i]))
    return x.new_zeros(shape)


def _another_rank(x: Tensor, pick: random.Random) -> Tensor:
    return pick.choice((x[None], x[..., None], x.flatten(), x.new_zeros(()), x[0] if x.ndim and len(x) else x[None]))


def _strides(x: Tensor, pick: random.Random) -> Tensor:
    if not x.ndim:
        return x
    axis = pick.randrange(x.ndim)
    every_second = x.repeat_interleave(2, axis)[(slice(None),) * axis + (slice(None, None, 2),)]
    column_major = x.t().contiguous().t() if x.ndim == 2 else x.transpose(0, -1)
    repeated = x[:1].expand_as(x) if len(x) else x
    return pick.choice((every_second, column_major, repeated))


def _values(x: Tensor, pick: random.Random) -> Tensor:
    y = x.clone(memory_format=torch.contiguous_format)
    if y.numel() and y.dtype != torch.bool:
        floats = (torch.nan, torch.inf, -torch.inf, 3e38, 0.0, -0.0, 1e-45)
        bound = torch.iinfo(y.dtype) if not (y.is_floating_point() or y.is_complex()) else None
        choices = floats if bound is None else [n for n in SIZES if bound.min <= n <= bound.max]
        for _ in range(pick.randint(1, 3)):
            y.view(-1)[pick.randrange(y.numel())] = pick.choice(choices)
    return y


CHANGES: tuple[Callable[[Tensor, random.Random], Any], ...] = (
    _resize, _resize, _another_rank, _strides, _strides, _values, _values,
    lambda x, pick: x.to(pick.choice(DTYPES)),
    lambda x, pick: x.to("meta"),
    lambda x, pick: x.to_sparse() if x.ndim else x,
    lambda x, pick: x.clone().requires_grad_() if x.is_floating_point() else x,
    lambda x, pick: torch.nn.Parameter(x, requires_grad=False),
    lambda x, pick: pick.choice((*OBJECTS, np.zeros(x.shape), [0.0])),
)  # fmt: skip


def _with_parts(x: Any, parts: list[Any]) -> Any:
    """A list or tuple, perhaps a named one, like `x` of other parts."""
    return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)


def _changed(x: Any, pick: random.Random) -> Any:
    if isinstance(x, Tensor):
        is_plain = x.layout == torch.strided and not x.is_meta  # others take few further changes
        return pick.choice(CHANGES if is_plain else CHANGES[-2:])(x, pick)
    if isinstance(x, (list, tuple)) and x and pick.random() < 0.8:
        i = pick.randrange(len(x))
        return _with_parts(x, [*x[:i], _changed(x[i], pick), *x[i + 1 :]])
    return pick.choice(NUMBERS) if pick.random() < 0.7 else pick.choice((*OBJECTS, torch.ones(()), torch.ones(2)))


def door(name: str, example: Case) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The operator and its arguments by name, as a user passes them."""
    arguments: dict[str, Any] = {**example.arrays, **example.settings}
    if example.lengths is not None:
        arguments["offsets"] = offsets_of(example.lengths)
    if name == "gru":
        arguments["weights"] = [tuple(arguments.pop(f"{part}_{i}") for part in GRU_PARTS) for i in range(2)]
        arguments |= {"h0": arguments["h0"].transpose(0, 1).contiguous(), "return_state": True}
    if name.endswith("_step"):
        k, v = arguments.pop("cached_k"), arguments.pop("cached_v")
        old = torch.arange(0, OLD_TOKENS * len(k) + 1, OLD_TOKENS)
        arguments["cache"] = KeyValues(k.flatten(0, 1), v.flatten(0, 1), old)
    return getattr(kernels, name), arguments


def _limits(lengths: list[int], dtype: torch.dtype, pick: random.Random) -> dict[str, Any]:
    """Targets, a window, a prefix and scales for hstu_attention and its step."""
    return {
        "num_targets": torch.tensor([pick.randint(0, n) for n in lengths], dtype=torch.int64),
        "max_attn_len": pick.choice((0, 1, 5)),
        "contextual_seq_len": pick.choice((0, 1, 10)),
        "attn_scale": torch.full((sum(lengths),), 0.25, dtype=dtype),
    }


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [y for each in x for y in _tensors(each)] if isinstance(x, (list, tuple)) else []


def _doubled(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().double() if x.is_floating_point() else x
    return _with_parts(x, [_doubled(y) for y in x]) if isinstance(x, (list, tuple)) else x


def _is_comparable(arguments: dict[str, Any]) -> bool:
    """Numbers at which rounding does not matter, float32 or float64, and integers whose differences do not overflow."""
    tensors = [x for argument in arguments.values() for x in _tensors(argument)]
    floats = [x for x in tensors if x.is_floating_point()]
    if any(isinstance(x, (int, float)) and abs(x) > 100 for x in arguments.values()):
        return False
    if any(bool((x.dtype == torch.int64) & ((x > 2**61) | (x < -(2**61))).any()) for x in tensors):
        return False
    return all(x.dtype in TOLERANCES for x in floats) and all(
        not x.numel() or bool((x.isfinite() & (x.abs() < 100) & ((x == 0) | (x.abs() > 1e-20))).all()) for x in floats
    )


def _check_result(operator: Callable[..., Any], arguments: dict[str, Any], returned: Any) -> None:
    tensors = [x for argument in arguments.values() for x in _tensors(argument)]
    if any(x.is_meta for x in tensors):
        return
    outputs = [y for y in _tensors(returned) if y.requires_grad]
    leaves = [x for x in tensors if x.requires_grad]
    if outputs and leaves:
        torch.autograd.grad(sum(y.sum() for y in outputs), leaves, allow_unused=True)
    if not _is_comparable(arguments):
        return
    with use_backend("reference"):
        expected = operator(**{key: _doubled(x) for key, x in arguments.items()})
    for y, want in zip(_tensors(returned), _tensors(expected), strict=True):
        tolerance = max(TOLERANCES[x.dtype] for x in tensors if x.is_floating_point())
        scale = max(1.0, want.double().abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(
            y.detach().double(), want.double(), rtol=tolerance, atol=tolerance * scale, equal_nan=True
        )


def fuzz_door(name: str, seed: int) -> None:
    """One call. AssertionError unless it agrees with the reference or raises an error that names an argument."""
    pick = random.Random(f"{name} {seed}")
    lengths = [pick.choice((0, 1, 2, 3, 9, 17)) for _ in range(pick.randint(0, 4))]
    dtype = pick.choice((torch.float32,) * 5 + (torch.float64, torch.bfloat16))
    operator, arguments = door(name, case(name, lengths, dtype, seed))
    if name.startswith("hstu_attention") and pick.random() < 0.5:
        arguments |= _limits(lengths, dtype, pick)
    names = list(inspect.signature(operator).parameters)
    flags = [key for key, x in arguments.items() if isinstance(x, bool)]  # read for their truth
    for _ in range(pick.choice((0, 1, 1, 1, 2, 3))):
        changed = pick.choice(list(arguments))
        is_flag = changed in flags
        arguments[changed] = pick.choice((False, None, "x", [])) if is_flag else _changed(arguments[changed], pick)
    try:
        returned = operator(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        if not re.search(rf"\b({'|'.join(names)})\b", str(error).split("\n")[0]):
            raise AssertionError(f"{name} raised an error that names no argument: {error!r}") from error
    except Exception as error:
        raise AssertionError(f"{name} raised {error!r}") from error
    else:
        _check_result(operator, arguments, returned)


def main(what: str, count: int, first: int, journal: str) -> None:
    torch.set_num_threads(1)
    file = os.open(journal, os.O_CREAT | os.O_WRONLY)
    if what == "door":
        runs = {name: [lambda seed, name=name: fuzz_door(name, seed)] for name in NAMES}
    else:
        runs = {}
        for call in record([(2, 3), (9, 0, 17), (0,)]):
            runs.setdefault(call.function, []).append(lambda seed, call=call: fuzz(native_module(), call, seed))
    problems: dict[str, str] = {}
    for name, variants in runs.items():
        for seed in range(first, first + count):
            os.pwrite(file, f"{name}, seed {seed}".ljust(80).encode(), 0)
            try:
                variants[seed % len(variants)](seed)
            except Exception as error:
                text = re.sub(r"[-\d.e+]+", "#", str(error))  # one problem however its numbers differ
                problems.setdefault(text, f"{name}, seed {seed}: {str(error).strip()}")
    if problems:
        sys.exit("\n".join(problems.values()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of casts that lose something
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
