"""What the launches of the HSTU kernels share: their common arguments and the sizes of their tiles."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import triton
from torch import Tensor

from ..memory import is_captured, known, remember
from ..tiles import block_of
from ..triton_tools import tile_schedule
from .buckets import MOST_BUCKETS, bucket_starts

if TYPE_CHECKING:
    from .settings import Settings


# Integers that differ from batch to batch: one compiled kernel serves all of their values.
UNSPECIALISED = ("sequences", "max_len", "last_bucket", "window", "contextual")
# A window that ends before no sequence's beginning, and still can be added to a position.
_NO_WINDOW = 2**30


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have on `device`; on CPU (interpreted) an H100's."""
    if device.type == "cpu":
        return 232_448
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def is_large(shared: int) -> bool:
    """Whether tiles of 128 rows of 256 columns fit beside each other: an H100 (227 KiB), not an A100 (163 KiB)."""
    return shared >= 200_000


def block_rows(widest: int, max_len: int, dtype: torch.dtype, shared: int) -> int:
    """The rows of one sequence that a program owns, for heads padded to `widest` columns.

    fp32 products are no matrix instructions here: their operands lie in registers, so the tiles are small.
    """
    if dtype == torch.float32:
        return 32 if widest <= 64 else 16
    if widest > 256:
        return max(16, 16_384 // widest)
    return 64 if not is_large(shared) or (max_len <= 64 and widest <= 128) else 128


def configs(choices: Iterable[tuple[int, int, int]], **constants: str) -> list[triton.Config]:
    """Configurations of (STREAM, warps, stages), with the same further constants."""
    return [
        triton.Config({"STREAM": n, **constants}, num_warps=warps, num_stages=stages) for n, warps, stages in choices
    ]


def by_descriptors(stream: int, stages: int, specialised: tuple[int, int] | None = None) -> list[triton.Config]:
    """Configurations whose tiles come by tensor descriptors, and, `specialised` of STREAM and stages, by warps of their
    own: of four warps each, a group that copies and two that compute."""
    found = configs([(stream, 8, stages)], LOADS="descriptors")
    return found + (configs([(specialised[0], 4, specialised[1])], LOADS="specialised") if specialised else [])


def tiles_are_whole(q: Tensor, v: Tensor, arguments: dict[str, Any]) -> bool:
    """Whether tensor descriptors' tiles serve the call: bf16 heads that need no padding, and no limits."""
    widths = {arguments[name] for name in ("WIDTH", "VALUE_WIDTH", "PADDED", "VALUE_PADDED")}
    return q.dtype == torch.bfloat16 and len(widths) == 1 and not arguments["HAS_LIMITS"]


@cache
def bucket_ends(num_buckets: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """For each bucket the first gap past it, for the last the largest number. Kept, so that only the first call of a
    process copies to the device."""
    largest = torch.iinfo(dtype).max
    ends = [*(min(n, largest) for n in bucket_starts(num_buckets)), largest]
    with torch.inference_mode(False):
        return torch.tensor(ends, dtype=dtype, device=device)


def seconds(timestamps: Tensor) -> Tensor:
    """The timestamps, or, where the host knows that their differences are below int32's largest number, int32 seconds
    since the earliest, made once a batch: gaps in 64 bits take the loops more instructions.

    A CUDA graph may be replayed with other values, so a capture takes them as they are.
    """
    bounds = known(timestamps, "bounds")
    if bounds is None or is_captured(timestamps) or bounds[1] - bounds[0] >= 2**31 - 1:
        return timestamps
    return remember(timestamps, "seconds", lambda: (timestamps - bounds[0]).to(torch.int32))


def common_arguments(q: Tensor, v: Tensor, settings: Settings, block: int) -> dict[str, Any]:
    """The arguments that every HSTU kernel takes, for tiles of `block` rows."""
    order, first_tile = tile_schedule(settings.offsets, block)
    limits = settings.limits
    windows = {"window": None, "contextual": None}
    if not limits.are_none:
        windows = {
            "window": min(limits.max_attn_len or _NO_WINDOW, _NO_WINDOW),
            "contextual": min(limits.contextual_seq_len, settings.max_len),
        }
    buckets, timestamps, ends = 0, None, None
    if settings.time_bias is not None:
        buckets, timestamps = min(len(settings.time_bias), MOST_BUCKETS), seconds(settings.timestamps)
        ends = bucket_ends(buckets, timestamps.dtype, q.device)
    return {
        "offsets": settings.offsets,
        "order": order,
        "first_tile": first_tile,
        "position_bias": settings.position_bias,
        "time_bias": settings.time_bias,
        "bucket_ends": ends,
        "timestamps": timestamps,
        "num_targets": limits.num_targets,
        "sequences": len(settings.offsets) - 1,
        "heads": q.shape[1],
        "max_len": settings.max_len,
        "last_bucket": buckets - 1,
        **windows,
        "scale": settings.scale,
        "WIDTH": q.shape[2],
        "VALUE_WIDTH": v.shape[2],
        "PADDED": block_of(q.shape[2]),
        "VALUE_PADDED": block_of(v.shape[2]),
        "HAS_POSITION": settings.position_bias is not None,
        "HAS_TIME": settings.time_bias is not None,
        "HAS_LIMITS": not limits.are_none,
    }
