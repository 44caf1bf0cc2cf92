from __future__ import annotations

import pytest
import torch

from ..cases import NAMES
from .conftest import assert_case_matches, gpu_backends

SMALLEST = [(), (0,), (1,), (0, 1, 0), (2, 3)]
ON_GPU = [(name, backend) for name in NAMES for backend in gpu_backends(name)]
gpu = pytest.mark.parametrize(("name", "backend"), ON_GPU)


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_matches_the_reference(name, backend, dtype):
    assert_case_matches(name, backend, dtype=dtype)


@gpu
@pytest.mark.parametrize("lengths", SMALLEST, ids=str)
def test_matches_the_reference_where_there_is_little_or_nothing(name, backend, lengths):
    assert_case_matches(name, backend, lengths)
