"""Causal attention by other packages' fused CUDA kernels, where they take the call: flash-attn, else torch's own.

Both take the packed layout as it is, bf16 and fp16 only. Nobody has to install them: where neither takes a call, the
operator's own backends run (`use_backend` always gets one of those). flash-attn is asked for a deterministic backward
pass; torch's is one under torch.use_deterministic_algorithms, and is left out unless that is on or no gradient is due.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from functools import cache

import torch
from torch import Tensor

from ..backend import choose, requested_backend
from ..checks import host_longest
from ..memory import remember
from ..tracing import constant_when_traced, never_traced

FLASH_ATTN, TORCH_VARLEN = "flash-attn", "torch varlen_attn"
_DTYPES = (torch.bfloat16, torch.float16)
_MAX_HEAD_SIZE = 256


@cache
def _has_flash_attn() -> bool:
    """Whether the package is installed and its compiled part can be imported."""
    if importlib.util.find_spec("flash_attn") is None:
        return False
    try:
        return hasattr(importlib.import_module("flash_attn"), "flash_attn_varlen_func")
    except (ImportError, OSError):
        return False


@cache
def _has_torch_varlen() -> bool:
    """Whether torch.nn.attention.varlen takes a scale and a window, as it does after torch 2.10's first version."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return False
    function = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    return {"scale", "window_size"} <= set(inspect.signature(function).parameters)


def implementation(
    device: str, dtype: torch.dtype, head_size: int, value_size: int | None = None, *, is_trained: bool = True
) -> str:
    """What runs for tensors of that device type ("cpu", "cuda"): "flash-attn", "torch varlen_attn" or a backend.

    Args:
        device, dtype: of q, k and v.
        head_size: components of a head of q and k.
        value_size: of v; None: the same.
        is_trained: a backward pass will follow.
    """
    fused = fused_choice(device, dtype, head_size, head_size if value_size is None else value_size, is_trained)
    return fused or choose("causal_attention", device, dtype)


def fused_choice(device: str, dtype: torch.dtype, head_size: int, value_size: int, is_trained: bool) -> str | None:
    """`implementation` where it is another package's, else None."""
    if device != "cuda" or head_size != value_size or head_size > _MAX_HEAD_SIZE or head_size % 8:
        return None
    return _package(dtype, is_trained)


@constant_when_traced  # because a ContextVar cannot be traced
def _package(dtype: torch.dtype, is_trained: bool) -> str | None:
    """The package that takes tensors of that dtype unasked; None if neither does, or a backend is requested."""
    if dtype not in _DTYPES or requested_backend() is not None:
        return None
    if _has_flash_attn():
        return FLASH_ATTN
    is_fixed = not is_trained or torch.are_deterministic_algorithms_enabled()
    return TORCH_VARLEN if is_fixed and _has_torch_varlen() else None


@never_traced  # because the longest length differs from batch to batch, and each would be compiled anew
def causal_attention(name: str, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> Tensor:
    """The operator by the package `name`; arguments are checked by the caller."""
    if q.shape[0] == 0:
        return (q.sum() + k.sum()) * v
    bounds = remember(offsets, "int32", lambda: offsets.to(torch.int32))
    longest = host_longest(offsets)
    if name == FLASH_ATTN:
        run = importlib.import_module("flash_attn").flash_attn_varlen_func
        sizes = (bounds, bounds, longest, longest)
        return run(q, k, v, *sizes, causal=True, softmax_scale=scale, deterministic=True)
    run = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    return run(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=(-1, 0))
