from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import linear_rank, use_backend
from uqabench.kernels.backend import available, native_module
from uqabench.kernels.linear_rank import eager

# The Triton kernels, interpreted on CPU, have tests of their own in gpu/.
BACKENDS = [n for n in ("reference", "eager", "native") if available("linear_rank")[n] is None]
NAN = float("nan")


def whole_numbers(tokens: int, items: int, width: int, seed: int = 0):
    """Small integers: every backend's sums are exact, and many items tie."""
    g = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randint(-2, 3, (n, width), generator=g).float() for n in (tokens, items))
    return hidden, weight, torch.randint(0, items, (tokens,), generator=g)


def rank_by_sorting(hidden, weight, target):
    """Position of the target in a stable sort by descending score: ties in the order of the items."""
    order = (hidden.double() @ weight.double().T).sort(dim=1, descending=True, stable=True).indices
    return (order == target[:, None]).nonzero()[:, 1]


@pytest.mark.parametrize("backend", BACKENDS)
@given(tokens=st.integers(0, 70), items=st.integers(1, 600), width=st.integers(0, 20), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_equals_the_place_in_a_stable_sort(backend, tokens, items, width, seed):
    if backend == "reference":
        tokens = min(tokens, 5)
    hidden, weight, target = whole_numbers(tokens, items, width, seed)
    with use_backend(backend):
        ranks = linear_rank(hidden, weight, target)
    assert ranks.dtype == torch.int64
    assert torch.equal(ranks, rank_by_sorting(hidden, weight, target))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_target_of_one_token_has_its_own_rank(backend):
    hidden, weight, _ = whole_numbers(1, 333, 3)
    with use_backend(backend):
        ranks = linear_rank(hidden.expand(333, 3), weight, torch.arange(333))
    assert sorted(ranks.tolist()) == list(range(333))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 37, 128])
def test_an_item_never_comes_before_itself(backend, width):
    """All items are one and the same row, whose sums round: the rank is the number of items before the target."""
    torch.manual_seed(0)
    weight = torch.randn(1, width).expand(301, width)
    target = torch.arange(0, 301, 10)
    hidden = torch.randn(len(target), width)
    with use_backend(backend):
        ranks = linear_rank(hidden, weight.contiguous(), target)
    if backend == "eager":  # torch's product may round equal rows apart, but the target's place among them is its own
        assert ((ranks >= 0) & (ranks <= 300)).all()
    else:
        assert torch.equal(ranks, target)


@pytest.mark.parametrize("backend", BACKENDS)
def test_agrees_with_the_reference_on_real_scores(backend):
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(9, 64), torch.randn(2000, 64), torch.randint(0, 2000, (9,))
    with use_backend(backend):
        ranks = linear_rank(hidden, weight, target)
    assert (ranks - rank_by_sorting(hidden, weight, target)).abs().max() <= 1  # fp32 may split a near tie


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    hidden, weight, target = whole_numbers(20, 300, 8)
    ranks = linear_rank(hidden.to(dtype), weight.to(dtype), target)
    assert torch.equal(ranks, rank_by_sorting(hidden, weight, target))


def test_eager_chunks_join(monkeypatch):
    monkeypatch.setattr(eager, "_CELLS", 20 * 7)
    hidden, weight, target = whole_numbers(20, 300, 8)
    with use_backend("eager"):
        assert torch.equal(linear_rank(hidden, weight, target), rank_by_sorting(hidden, weight, target))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_never_flatters(backend):
    weight = torch.tensor([[3.0], [1.0], [NAN], [2.0]])
    with use_backend(backend):
        assert linear_rank(torch.ones(4, 1), weight, torch.arange(4)).tolist() == [1, 3, 3, 2]
        assert linear_rank(torch.tensor([[NAN]]), torch.ones(5, 1), torch.tensor([0])).tolist() == [4]


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_rows(backend):
    hidden, weight, target = whole_numbers(5, 50, 8)
    with use_backend(backend):
        ranks = linear_rank(hidden[:, 2:6], weight[:, 2:6], target)
    assert torch.equal(ranks, rank_by_sorting(hidden[:, 2:6], weight[:, 2:6], target))


def test_native_does_not_depend_on_threads():
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(33, 24), torch.randn(3001, 24), torch.randint(0, 3001, (33,))
    results = []
    for threads in (1, 2, 5):
        rank = torch.empty_like(target)
        native_module().linear_rank(*(x.numpy() for x in (rank, hidden, weight, target)), threads=threads)
        results.append(rank)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_it_compiles_into_one_graph_and_has_no_gradient():
    hidden, weight, target = whole_numbers(20, 300, 8)
    compiled = torch.compile(linear_rank, backend="eager", fullgraph=True)
    assert torch.equal(compiled(hidden, weight, target), linear_rank(hidden, weight, target))
    assert not linear_rank(hidden.requires_grad_(), weight.requires_grad_(), target).requires_grad


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": torch.zeros(3)}, ValueError, "hidden must have shape"),
        ({"weight": torch.zeros(4, 3)}, ValueError, r"weight must have shape \(\*, 2\)"),
        ({"weight": torch.zeros(4, 2).double()}, TypeError, "weight is float64, but hidden is float32"),
        ({"target": torch.zeros(3)}, TypeError, "target must be int64"),
        ({"target": torch.zeros(2, dtype=torch.int64)}, ValueError, r"target must have shape \(3,\)"),
        ({"target": torch.tensor([0, 4, 1])}, ValueError, r"target must lie in \[0, 4\), but holds 4"),
        ({"target": torch.tensor([0, -1, 1])}, ValueError, r"target must lie in \[0, 4\), but holds -1"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    good = {"hidden": torch.zeros(3, 2), "weight": torch.zeros(4, 2), "target": torch.zeros(3, dtype=torch.int64)}
    with pytest.raises(error, match=message):
        linear_rank(**(good | change))
