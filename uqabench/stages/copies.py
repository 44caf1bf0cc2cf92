"""Arrays on their way to a GPU: several in one copy from pinned memory, on a stream of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 128
"""Each array of a common buffer begins at a multiple of so many bytes: Triton compiles anew for other alignments."""


@dataclass(frozen=True)
class Arrival:
    """A copy on its way: the event behind it, and the memory that it fills."""

    event: torch.cuda.Event
    buffer: Tensor

    def wait(self) -> None:
        """Makes the current stream wait for the copy, where that ran on another."""
        current = torch.cuda.current_stream(self.buffer.device)
        current.wait_event(self.event)
        self.buffer.record_stream(current)


class Place(NamedTuple):
    """Where an array lies in a common buffer: bytes, and what they are."""

    bytes: slice
    dtype: torch.dtype
    shape: tuple[int, ...]


def copied_together(
    arrays: Mapping[str, np.ndarray], device: torch.device, stream: torch.cuda.Stream | None
) -> tuple[dict[str, Tensor], Arrival]:
    """Arrays on a GPU, integers as int64, by one copy from pinned memory that the host does not wait for.

    stream: on which it is copied, by default the current one.
    """
    pinned, places = joined(arrays, pinned=True)
    with torch.cuda.stream(stream or torch.cuda.current_stream(device)):
        buffer = pinned.to(device, non_blocking=True)
        event = torch.cuda.current_stream(device).record_event()
    return apart(buffer, places), Arrival(event, buffer)


def joined(arrays: Mapping[str, np.ndarray], *, pinned: bool) -> tuple[Tensor, dict[str, Place]]:
    """All arrays in one buffer of the host, integers as int64, and where each lies."""
    places, begin = {}, 0
    for name, array in arrays.items():
        kept = np.dtype(np.int64) if array.dtype.kind in "iu" else array.dtype
        size = array.size * kept.itemsize
        places[name] = Place(slice(begin, begin + size), _torch_dtype(kept), array.shape)
        begin += -(-size // _ALIGNED) * _ALIGNED
    buffer = torch.empty(begin, dtype=torch.uint8, pin_memory=pinned)
    for name, view in apart(buffer, places).items():
        view.numpy()[...] = arrays[name]
    return buffer, places


def apart(buffer: Tensor, places: Mapping[str, Place]) -> dict[str, Tensor]:
    """The arrays of `joined` as views of the buffer."""
    return {name: buffer[place.bytes].view(place.dtype).view(place.shape) for name, place in places.items()}


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
