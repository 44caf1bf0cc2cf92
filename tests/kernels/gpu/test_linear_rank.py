from __future__ import annotations

import pytest
import torch

from uqabench.kernels import linear_rank, use_backend

from .conftest import DEVICE

pytest.importorskip("triton")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
NAN, INF = float("nan"), float("inf")


def ranks(hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, backend: str = "triton") -> torch.Tensor:
    with use_backend(backend):
        return linear_rank(hidden.to(DEVICE), weight.to(DEVICE), target.to(DEVICE)).cpu()


def whole_numbers(tokens: int, items: int, width: int, dtype: torch.dtype = torch.float32):
    """Small integers: sums are exact, and many items tie."""
    g = torch.Generator().manual_seed(tokens + items)
    hidden, weight = (torch.randint(-2, 3, (n, width), generator=g).to(dtype) for n in (tokens, items))
    return hidden, weight, torch.randint(0, items, (tokens,), generator=g)


@DTYPES
@pytest.mark.parametrize(
    ("tokens", "items", "width"),
    [(0, 4, 3), (1, 1, 1), (5, 300, 0), (127, 257, 7), (128, 256, 17), (129, 255, 16), (2, 1000, 5)],
)
def test_matches_the_reference_with_many_ties(tokens, items, width, dtype):
    inputs = whole_numbers(tokens, items, width, dtype)
    assert torch.equal(ranks(*inputs), ranks(*inputs, "reference"))


@pytest.mark.parametrize("width", [200, 300, 520])
def test_wide_vectors(width):
    inputs = whole_numbers(7, 100, width, torch.bfloat16)
    assert torch.equal(ranks(*inputs), ranks(*inputs, "reference"))


@pytest.mark.slow
def test_several_tiles_of_tokens_and_items():
    inputs = whole_numbers(500, 3000, 9, torch.bfloat16)
    assert torch.equal(ranks(*inputs), ranks(*inputs, "reference"))


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter's products sum in an order of NumPy's")
@DTYPES
@pytest.mark.parametrize("width", [1, 37, 128, 300])
def test_equal_rows_tie_exactly(width, dtype):
    """All items are one and the same row, whose sums round: the rank is the number of items before the target."""
    torch.manual_seed(0)
    weight = torch.randn(1, width).to(dtype).expand(301, width).contiguous()
    target = torch.arange(0, 301, 10)
    assert torch.equal(ranks(torch.randn(len(target), width).to(dtype), weight, target), target)


def test_scores_of_zero_below_and_without_bound():
    """The next smaller float than 0, than negative numbers and than -inf."""
    weight = torch.tensor([[0.0], [-0.0], [-1.0], [-1.0], [-INF], [1.0], [INF], [-INF]])
    target = torch.arange(8)
    hidden = torch.ones(8, 1)
    order = [2, 3, 4, 5, 6, 1, 0, 7]
    assert ranks(hidden, weight, target).tolist() == order
    assert ranks(hidden, weight, target, "reference").tolist() == order


def test_nan_never_flatters():
    weight = torch.tensor([[3.0], [1.0], [NAN], [2.0]])
    assert ranks(torch.ones(4, 1), weight, torch.arange(4)).tolist() == [1, 3, 3, 2]
    assert ranks(torch.tensor([[NAN], [1.0]]), torch.ones(5, 1), torch.tensor([0, 2])).tolist() == [4, 2]


def test_ties_in_tiles_before_and_behind_the_target():
    """One token, so all tiles but the target's take the comparison by bound; zeros, a negative score and NaN."""
    for score in (0.0, -1.5, NAN):
        weight = torch.full((900, 1), score)
        for target in (0, 255, 256, 899):
            expected = 899 if score != score else target
            assert ranks(torch.ones(1, 1), weight, torch.tensor([target])).tolist() == [expected]


def test_strided_rows_and_no_gradient():
    hidden, weight, target = whole_numbers(5, 50, 8)
    expected = ranks(hidden[:, 2:6], weight[:, 2:6], target, "reference")
    found = ranks(hidden[:, 2:6].requires_grad_(), weight[:, 2:6], target)
    assert torch.equal(found, expected) and not found.requires_grad


def test_registered_operator_passes_torchs_own_checks():
    inputs = (*(x.to(DEVICE) for x in whole_numbers(5, 50, 8)), "triton")
    torch.library.opcheck(torch.ops.uqabench.linear_rank, inputs, test_utils=("test_schema", "test_faketensor"))
