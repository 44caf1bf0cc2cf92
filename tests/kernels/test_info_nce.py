from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from uqabench.kernels import info_nce, use_backend
from uqabench.kernels.backend import available
from uqabench.kernels.linear_cross_entropy import eager as chunked

# The Triton kernels, interpreted on CPU, have tests of their own in gpu/.
BACKENDS = [n for n in ("eager", "native") if available("info_nce")[n] is None]
WIDTH = 6


def make_inputs(tokens: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    return {name: torch.randn(tokens, WIDTH).to(dtype) for name in ("hidden", "positives")}


def make_ids(tokens: int) -> torch.Tensor:
    """About half of the rows share their item with another."""
    return torch.randint(0, max(1, tokens), (tokens,), generator=torch.Generator().manual_seed(tokens))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "_CACHE_BYTES", 0)
    monkeypatch.setattr(chunked, "_ENOUGH_ROWS", 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("has_log_q", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 5, 7, 33])
def test_matches_the_reference(matches_reference, small_chunks, backend, has_log_q, tokens):
    ids = make_ids(tokens)
    log_q = torch.rand(tokens, generator=torch.Generator().manual_seed(1)).log() if has_log_q else None
    matches_reference(lambda **xs: info_nce(**xs, ids=ids, log_q=log_q, temperature=0.3), make_inputs(tokens), backend)


def test_matches_the_reference_in_bfloat16(matches_reference):
    ids, log_q = make_ids(33), torch.rand(33, generator=torch.Generator().manual_seed(1)).log()
    inputs = make_inputs(33, torch.bfloat16)
    matches_reference(lambda **xs: info_nce(**xs, ids=ids, log_q=log_q, temperature=1.0), inputs, "eager")


def test_gradients_agree_with_finite_differences(small_chunks):
    leaves = [x.requires_grad_() for x in make_inputs(12, torch.float64).values()]
    ids, log_q = make_ids(12), torch.rand(12).log()
    assert torch.autograd.gradcheck(lambda h, p: info_nce(h, p, ids, log_q, 0.5), leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_distinct_items_are_torchs_cross_entropy_with_the_diagonal(backend):
    inputs = make_inputs(10)
    log_q = torch.arange(10) / 10
    expected = cross_entropy(inputs["hidden"] @ inputs["positives"].t() / 0.7 - log_q, torch.arange(10))
    with use_backend(backend):
        torch.testing.assert_close(info_nce(**inputs, ids=torch.arange(10), log_q=log_q, temperature=0.7), expected)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_an_item_is_no_negative_of_itself(backend):
    inputs = {name: x.requires_grad_() for name, x in make_inputs(8).items()}
    with use_backend(backend):
        loss = info_nce(**inputs, ids=torch.full((8,), 3), log_q=None, temperature=0.1)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(loss, list(inputs.values())))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20)
@given(tokens=st.integers(1, 30), data=st.data())
def test_order_of_rows_does_not_matter(backend, tokens, data):
    inputs, ids, log_q = make_inputs(tokens), make_ids(tokens), torch.rand(tokens).log()
    order = torch.tensor(data.draw(st.permutations(range(tokens))))
    moved = {name: x[order] for name, x in inputs.items()}
    with use_backend(backend):
        loss = info_nce(**inputs, ids=ids, log_q=log_q, temperature=0.5)
        torch.testing.assert_close(info_nce(**moved, ids=ids[order], log_q=log_q[order], temperature=0.5), loss)


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("hidden", torch.zeros(6), ValueError),
        ("positives", torch.zeros(5, WIDTH), ValueError),
        ("positives", torch.zeros(6, WIDTH, dtype=torch.float64), TypeError),
        ("ids", torch.zeros(6), TypeError),
        ("log_q", torch.zeros(5), ValueError),
        ("log_q", torch.zeros(6, dtype=torch.float64), TypeError),
        ("temperature", 0.0, ValueError),
        ("temperature", float("nan"), ValueError),
        ("temperature", "1", TypeError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {**make_inputs(6), "ids": torch.arange(6), "log_q": None, "temperature": 1.0, name: bad}
    with pytest.raises(error, match=rf"^{name}\b"):
        info_nce(**arguments)
