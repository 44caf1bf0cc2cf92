from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import embedding_bag_mean, use_backend
from uqabench.kernels.backend import available, native_module

BACKENDS = [
    n for n, problem in available("embedding_bag_mean").items() if problem is None and n not in ("reference", "triton")
]
RAGGED = [[], [0], [1], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
ROWS, WIDTH = 10, 3


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_table(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(3)).to(dtype)


def make_ids(lengths: list[int]) -> torch.Tensor:
    return torch.randint(0, ROWS - 1, (sum(lengths),), generator=torch.Generator().manual_seed(len(lengths)))


@pytest.mark.parametrize(("backend", "dtype"), [(b, d) for b in BACKENDS for d in (torch.float32, torch.bfloat16)])
@pytest.mark.parametrize("sparse", [False, True])
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


def many_blocks(width: int = 53) -> tuple[torch.Tensor, Callable[..., torch.Tensor]]:
    """A table of several blocks, and a call: many bags, strided rows unless sparse, one id that occurs often."""
    lengths, rows = [0, 70, 1, 0, 64, 3, *[4] * 150], 2500
    torch.manual_seed(0)
    ids = torch.cat([torch.randint(0, rows, (sum(lengths) - 30,)), torch.full((30,), rows - 1)])

    def call(table, sparse=False):
        return embedding_bag_mean(table if sparse else table[:, 3:], ids, offsets_of(lengths), sparse=sparse)

    return torch.randn(rows, width + 3), call


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 16, 53])
def test_a_table_of_many_blocks_with_strided_rows(matches_reference, backend, width):
    table, call = many_blocks(width)
    matches_reference(call, {"table": table}, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_bag_and_its_rows(backend):
    table, ids = make_table(), torch.tensor([4, 1, 2, 4])
    with use_backend(backend):
        table[4] = float("nan")
        means = embedding_bag_mean(table, ids, torch.tensor([0, 1, 3, 4]))
        assert means.isnan().all(1).tolist() == [True, False, True]
        table = make_table().requires_grad_()
        grad = torch.tensor([1.0, float("inf"), 1.0])[:, None].expand(3, WIDTH)
        embedding_bag_mean(table, ids, torch.tensor([0, 1, 3, 4])).backward(grad)
    assert table.grad.isfinite().all(1).logical_not().nonzero().flatten().tolist() == [1, 2]


def means_and_gradient(call, table, sparse=False):
    table = table.clone().requires_grad_()
    means = call(table, sparse=sparse)
    (gradient,) = torch.autograd.grad(means.square().sum(), table)
    return means, gradient.to_dense() if sparse else gradient


@pytest.mark.skipif("native" not in BACKENDS, reason="no compiled module")
class TestNative:
    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("threads", [2, 5])
    def test_is_the_same_to_the_bit_on_any_number_of_threads(self, threads, sparse):
        table, call = many_blocks()
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            expected = means_and_gradient(call, table, sparse)
            torch.set_num_threads(threads)
            for got, want in zip(means_and_gradient(call, table, sparse), expected, strict=True):
                assert torch.equal(got, want)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("name", native_module().instruction_sets() if "native" in BACKENDS else [])
    @pytest.mark.parametrize("width", [53, 64])
    @pytest.mark.parametrize("sparse", [False, True])
    def test_on_every_instruction_set(self, name, width, sparse):
        widest = native_module().instruction_set()
        table, call = many_blocks(width)
        with use_backend("eager"):
            expected = means_and_gradient(call, table, sparse)
        try:
            native_module().set_instruction_set(name)
            for got, want in zip(means_and_gradient(call, table, sparse), expected, strict=True):
                torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
        finally:
            native_module().set_instruction_set(widest)

    def test_a_gradient_on_large_pages(self):
        ids, rows = torch.tensor([0, 2**18, 7, 2**18]), 2**18 + 1
        table = torch.zeros(rows, 33, requires_grad=True)
        embedding_bag_mean(table, ids, torch.tensor([0, 2, 4])).sum().backward()
        assert table.grad[[0, 7, 2**18]].eq(torch.tensor([0.5, 0.5, 1.0])[:, None]).all()
        assert table.grad.count_nonzero() == 3 * 33

    @pytest.mark.parametrize("sparse", [False, True])
    def test_compiles_into_one_graph_with_gradients(self, sparse):
        table, call = many_blocks()
        compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
        expected = means_and_gradient(call, table, sparse)
        for got, want in zip(means_and_gradient(compiled, table, sparse), expected, strict=True):
            assert torch.equal(got, want)

    def test_is_registered_correctly(self):
        ids, offsets = make_ids([3, 0, 2]), offsets_of([3, 0, 2])
        arguments = (make_table().requires_grad_(), ids, offsets, False, "native")
        torch.library.opcheck(torch.ops.uqabench.embedding_bag_mean, arguments)
        arguments = (torch.randn(3, 2), ids, offsets, "native")
        torch.library.opcheck(torch.ops.uqabench.embedding_bag_mean_values, arguments)

    def test_the_module_checks_what_could_leave_memory(self):
        table, ids, offsets = np.zeros((4, 2), np.float32), np.array([3, 0]), np.array([0, 1, 2])
        mean, backward, values = (
            getattr(native_module(), f"embedding_bag_mean{suffix}") for suffix in ("", "_backward", "_values")
        )
        for call, first in ((mean, table[:2]), (backward, table), (values, table[:2])):
            second = table if call is mean else table[:2]
            call(first.copy(), second, ids, offsets, threads=1)
            with pytest.raises(ValueError, match="^ids must lie in"):
                call(first.copy(), second, np.array([3, -1]), offsets, threads=1)
            with pytest.raises(ValueError, match="^offsets must not fall"):
                call(first.copy(), second, ids, np.array([0, 3, 2]), threads=1)
            with pytest.raises(ValueError, match="^(out|gradient|values) "):
                call(first[:, :1].copy(), second, ids, offsets, threads=1)
        with pytest.raises(ValueError, match="^grad has the wrong shape"):
            backward(table.copy(), table[:1], ids, offsets, threads=1)


@settings(max_examples=25)
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
