from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import embedding_bag_mean, use_backend
from uqabench.kernels.backend import available

BACKENDS = [n for n, problem in available("embedding_bag_mean").items() if problem is None and n != "reference"]
RAGGED = [[], [0], [1], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
ROWS, WIDTH = 10, 3


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_table(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(3)).to(dtype)


def make_ids(lengths: list[int]) -> torch.Tensor:
    return torch.randint(0, ROWS - 1, (sum(lengths),), generator=torch.Generator().manual_seed(len(lengths)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, sparse, dtype, lengths):
    ids, offsets = make_ids(lengths), offsets_of(lengths)
    matches_reference(
        lambda table: embedding_bag_mean(table, ids, offsets, sparse=sparse), {"table": make_table(dtype)}, backend
    )


def test_gradients_agree_with_finite_differences():
    lengths = [0, 3, 5, 1]
    table = make_table(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: embedding_bag_mean(t, make_ids(lengths), offsets_of(lengths)), table)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_means_of_known_rows(backend):
    table = torch.tensor([[1.0], [2.0], [6.0]])
    with use_backend(backend):
        means = embedding_bag_mean(table, torch.tensor([2, 0, 1, 1, 1]), torch.tensor([0, 3, 3, 5]))
    assert means.tolist() == [[3.0], [0.0], [2.0]]


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_a_sparse_gradient_holds_the_rows_used_and_no_other(backend):
    table = make_table().requires_grad_()
    with use_backend(backend):
        embedding_bag_mean(table, torch.tensor([4, 1, 4]), torch.tensor([0, 2, 2, 3]), sparse=True).sum().backward()
    assert table.grad.is_sparse
    gradient = table.grad.coalesce()
    assert gradient.indices().tolist() == [[1, 4]]
    torch.testing.assert_close(gradient.values(), torch.tensor([[0.5], [1.5]]).expand(2, WIDTH))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_repeated_run_gives_the_same_bits(sparse):
    lengths = [20] * 50

    def gradient():
        table = make_table().requires_grad_()
        embedding_bag_mean(table, make_ids(lengths), offsets_of(lengths), sparse=sparse).square().sum().backward()
        return table.grad.to_dense()

    assert torch.equal(gradient(), gradient())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(bags=st.lists(st.lists(st.integers(0, ROWS - 1), max_size=6), max_size=6), data=st.data())
def test_order_within_and_of_bags_does_not_matter(bags, data):
    table = make_table(torch.float64)

    def means(bags):
        ids = torch.tensor([i for bag in bags for i in bag], dtype=torch.int64)
        return embedding_bag_mean(table, ids, offsets_of([len(bag) for bag in bags]))

    order = data.draw(st.permutations(range(len(bags))))
    moved = [data.draw(st.permutations(bags[i])) for i in order]
    torch.testing.assert_close(means(moved), means(bags)[torch.tensor(order, dtype=torch.int64)])


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("table", torch.zeros(ROWS), ValueError),
        ("table", torch.zeros(ROWS, WIDTH, dtype=torch.int64), TypeError),
        ("ids", torch.zeros(3, dtype=torch.int32), TypeError),
        ("ids", torch.tensor([0, ROWS, 0]), ValueError),
        ("ids", torch.tensor([0, -1, 0]), ValueError),
        ("offsets", torch.tensor([0, 2]), ValueError),
        ("offsets", torch.zeros(0, dtype=torch.int64), ValueError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {"table": make_table(), "ids": torch.zeros(3, dtype=torch.int64), "offsets": torch.tensor([0, 1, 3])}
    with pytest.raises(error, match=rf"^{name}\b"):
        embedding_bag_mean(**(arguments | {name: bad}))
