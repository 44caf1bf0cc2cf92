"""The counter-based generator and the dropout drawn from it."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import philox

KNOWN = [  # the generator's published test vectors: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_vectors(counter, key, words):
    found = philox.philox4x32(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(map(int, found)) == words


def test_which_bits_a_number_takes():
    seed = torch.tensor(0x299F31D0_A4093822)
    key = (torch.tensor(0xA4093822), torch.tensor(0x299F31D0))
    words = philox.philox4x32(tuple(map(torch.tensor, (2, 5, 0, 0))), key)
    bits = sum(int(word) << (32 * i) for i, word in enumerate(words))
    for p in (0.1, 0.5, 0.9):
        expected = [(bits >> (16 * i)) % 65536 >= philox.threshold(p) for i in range(6)]
        assert philox.is_kept(6, 22, p, seed)[5, 16:].tolist() == expected


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9])
def test_the_share_dropped_and_the_mean(p):
    y = philox.dropout(torch.ones(1000, 1000), p, torch.tensor(3))
    deviation = (p * (1 - p) / 1e6) ** 0.5
    assert abs((y == 0).double().mean() - p) < 4 * deviation + 1e-5
    assert abs(y.double().mean() - 1) < 4 * deviation / (1 - p) + 1e-5


def test_rows_columns_and_seeds_differ():
    kept = philox.is_kept(64, 64, 0.5, torch.tensor(1))
    assert len({tuple(row) for row in kept.tolist()}) == len({tuple(column) for column in kept.T.tolist()}) == 64
    for other in (2, 1 + 2**32, -1):
        share = (kept == philox.is_kept(64, 64, 0.5, torch.tensor(other))).double().mean()
        assert 0.45 < share < 0.55


def test_a_seed_tells_everything_and_nan_is_dropped_too():
    x = torch.full((5, 3, 20), torch.nan)
    y = philox.dropout(x, 0.5, torch.tensor(9))
    assert torch.equal(y == 0, ~philox.is_kept(15, 20, 0.5, torch.tensor(9)).view(x.shape))
    assert torch.equal(y.isnan(), y != 0)
