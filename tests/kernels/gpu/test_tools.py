"""The schedule of persistent launches."""

from __future__ import annotations

import pytest
import torch

from ..cases import offsets_of
from .conftest import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from uqabench.kernels.triton_tools import find_sequence, on_device_of, tile_schedule  # noqa: E402


@triton.jit
def list_tiles(order, first_tile, out_sequence, out_part, sequences):
    total = tl.load(first_tile + sequences)
    for tile in range(tl.program_id(0), total, tl.num_programs(0)):
        s = find_sequence(first_tile, tile, sequences)
        tl.store(out_sequence + tile, tl.load(order + s))
        tl.store(out_part + tile, tile - tl.load(first_tile + s))


@pytest.mark.parametrize("lengths", [(40, 0, 33, 7, 7, 1), (1,), (0, 0), (), (64, 65, 0, 63, 200)], ids=str)
def test_every_tile_of_every_sequence_once_longest_first(lengths):
    offsets = offsets_of(lengths).to(DEVICE)
    order, first_tile = tile_schedule(offsets, 16)
    total = sum(-(-n // 16) for n in lengths)
    assert first_tile[-1] == total
    sequence, part = torch.full((2, total), -1, dtype=torch.int64, device=DEVICE)
    with on_device_of(offsets):
        list_tiles[(3,)](order, first_tile, sequence, part, len(lengths))
    by_length = sorted(range(len(lengths)), key=lambda b: (-lengths[b], b))
    expected = [(b, i) for b in by_length for i in range(-(-lengths[b] // 16))]
    assert list(zip(sequence.tolist(), part.tolist(), strict=True)) == expected
