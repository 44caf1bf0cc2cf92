"""Causal attention by other packages' fused CUDA kernels, where they take the call: flash-attn 3 on Hopper, else
flash-attn, else torch's own.

All take the packed layout as it is, bf16 and fp16 only. Nobody has to install them: where none takes a call, the
operator's own backends run (`use_backend` always gets one of those). flash-attn is asked for a deterministic backward
pass; torch's is one under torch.use_deterministic_algorithms, and is left out unless that is on or no gradient is due.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..backend import choose, requested_backend
from ..checks import host_longest
from ..memory import remember
from ..tracing import constant_when_traced, never_traced

FLASH_ATTN_3, FLASH_ATTN, TORCH_VARLEN = "flash-attn 3", "flash-attn", "torch varlen_attn"
PACKAGES = (FLASH_ATTN_3, FLASH_ATTN, TORCH_VARLEN)
"""In the order in which they are tried."""
_FUNCTIONS = {
    FLASH_ATTN_3: ("flash_attn_interface", "flash_attn_varlen_func"),
    FLASH_ATTN: ("flash_attn", "flash_attn_varlen_func"),
    TORCH_VARLEN: ("torch.nn.attention.varlen", "varlen_attn"),
}
_DTYPES = (torch.bfloat16, torch.float16)
_MAX_HEAD_SIZE = 256
_HOPPER = 9  # the major compute capability that flash-attn 3 is written for


@cache
def problem(name: str) -> str | None:
    """Why the package `name` cannot run here, whatever the call; None if it can."""
    module, function = _FUNCTIONS[name]
    try:
        if importlib.util.find_spec(module) is None:
            return "not installed"
        found = getattr(importlib.import_module(module), function, None)
    except (ImportError, OSError) as error:
        return f"does not import ({' '.join(str(error).split())[:120]})"
    if found is None:
        return f"has no {function}"
    try:
        inspect.signature(found).bind(**_call(name, *[None] * 6))
    except TypeError as error:
        return f"another version is needed ({function}: {error})"
    if name == FLASH_ATTN_3 and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] != _HOPPER:
        return "runs on Hopper GPUs only"
    return None


def _call(name: str, q: Any, k: Any, v: Any, bounds: Any, longest: Any, scale: Any) -> dict[str, Any]:
    """The arguments of the package's function, by name: their order differs between versions.

    bounds: int32 (B+1,). longest: tokens of the longest sequence.
    """
    if name == TORCH_VARLEN:
        sizes = {"cu_seq_q": bounds, "cu_seq_k": bounds, "max_q": longest, "max_k": longest}
        return {"query": q, "key": k, "value": v, **sizes, "scale": scale, "window_size": (-1, 0)}
    sizes = {"cu_seqlens_q": bounds, "cu_seqlens_k": bounds, "max_seqlen_q": longest, "max_seqlen_k": longest}
    return {"q": q, "k": k, "v": v, **sizes, "softmax_scale": scale, "causal": True, "deterministic": True}


def implementation(
    device: str, dtype: torch.dtype, head_size: int, value_size: int | None = None, *, is_trained: bool = True
) -> str:
    """What runs for tensors of that device type ("cpu", "cuda"): one of PACKAGES, or a backend.

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
    is_fixed = not is_trained or torch.are_deterministic_algorithms_enabled()
    usable = (name for name in PACKAGES if problem(name) is None and (name != TORCH_VARLEN or is_fixed))
    return next(usable, None)


@never_traced  # because the longest length differs from batch to batch, and each would be compiled anew
def causal_attention(name: str, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> Tensor:
    """The operator by the package `name`; arguments are checked by the caller."""
    if q.shape[0] == 0:
        return (q.sum() + k.sum()) * v
    bounds = remember(offsets, "int32", lambda: offsets.to(torch.int32))
    longest = host_longest(offsets)
    module, function = _FUNCTIONS[name]
    out = getattr(importlib.import_module(module), function)(**_call(name, q, k, v, bounds, longest, scale))
    return out[0] if isinstance(out, tuple) else out  # some versions return each row's log-sum beside it
