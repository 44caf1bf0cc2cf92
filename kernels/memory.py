"""What is known of a tensor's values or was made from them, kept on the tensor until it is changed in place.

Layers of a model share such values: the offsets as the host has them, or a schedule of tiles on the device. On CUDA a
value of the device belongs to the stream that made it: another stream first waits for it, and the allocator hears that
it is used there. What a CUDA graph's capture makes exists when the graph is replayed and not before, so it serves its
own call alone, and a capture takes nothing of the device's that was made before it: a replay then follows the values
that the tensor has by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Value = TypeVar("Value")


class _Entry(NamedTuple):
    version: int
    value: Any
    stream: Any = None  # the CUDA stream that made it; None for values of the host
    made: Any = None  # the event behind its making on that stream


def is_captured(x: Tensor) -> bool:
    """Whether a CUDA graph is being captured on the current stream of x's kind of device."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def remember(x: Tensor, key: str, build: Callable[[], Value], *, on_host: bool = False) -> Value:
    """`build()`, cached on the tensor under `key` until `x` is changed in place (not cached in inference mode).

    on_host: the value is the host's and holds nothing that lies on a device.
    """
    if x.is_inference():
        return build()
    is_of_device = x.is_cuda and not on_host
    if is_of_device and is_captured(x):
        return build()
    kept = x.__dict__.setdefault("_uqabench", {})
    entry = kept.get(key)
    if entry is None or entry.version != x._version:
        value = build()
        entry = kept[key] = _Entry(x._version, value, *(_stamp(x) if is_of_device else ()))
    elif is_of_device:
        _take_over(x, entry)
    return entry.value


def known(x: Tensor, key: str) -> Any:
    """What `know` said of `x`; None if nothing was said, or `x` was changed in place since."""
    entry = x.__dict__.get("_uqabench", {}).get(key)
    return entry.value if entry is not None and entry.version == x._version else None


def know(x: Tensor, values: Mapping[str, Any]) -> None:
    """Keeps what the host knows of `x`, under the keys of `remember` (nothing in inference mode)."""
    if x.is_inference():
        return
    kept = x.__dict__.setdefault("_uqabench", {})
    kept.update({key: _Entry(x._version, value) for key, value in values.items()})


def know_offsets(offsets: Tensor, values: np.ndarray) -> Tensor:
    """`offsets` (B+1,), of which the host has the values int64 (B+1,): checked there, and never read from the device.

    Raises ValueError where they are no offsets; that they are the tensor's values is the caller's word.
    """
    from .checks import check_rising

    check_rising(values, int(values[-1]))
    lengths = np.diff(values)
    know(offsets, {"values": values, "longest": int(lengths.max(initial=0)), "rises to": int(values[-1])})
    return offsets


def know_bounds(ids: Tensor, values: np.ndarray) -> Tensor:
    """`ids`, of which the host has the values: their least and greatest are kept, so that no check reads the device."""
    know(ids, {"bounds": (int(values.min()), int(values.max())) if values.size else (0, -1)})
    return ids


def _stamp(x: Tensor) -> tuple[Any, Any]:
    stream = torch.cuda.current_stream(x.device)
    return stream, stream.record_event()


def _take_over(x: Tensor, entry: _Entry) -> None:
    """Makes the current stream wait for an entry that another stream made."""
    current = torch.cuda.current_stream(x.device)
    if entry.stream is None or current == entry.stream:
        return
    current.wait_event(entry.made)
    for tensor in _tensors(entry.value):
        tensor.record_stream(current)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of a value made of tuples, lists and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
