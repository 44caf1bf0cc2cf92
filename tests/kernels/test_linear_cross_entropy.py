from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from uqabench.kernels import linear_cross_entropy, use_backend
from uqabench.kernels.backend import available
from uqabench.kernels.linear_cross_entropy import eager

# The Triton kernels, interpreted on CPU, have tests of their own in gpu/.
BACKENDS = [n for n in ("eager", "native") if available("linear_cross_entropy")[n] is None]
WIDTH = 6


def make_inputs(tokens: int, items: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {"hidden": torch.randn(tokens, WIDTH), "weight": torch.randn(items, WIDTH)}
    return {name: x.to(dtype) for name, x in inputs.items()}


def make_target(tokens: int, items: int, ignored: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens + items)
    target = torch.randint(0, items, (tokens,), generator=generator)
    return target.masked_fill(torch.rand(tokens, generator=generator) < ignored, -100)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of five rows: the tests' sizes then cross several, and end within one."""
    monkeypatch.setattr(eager, "_CACHE_BYTES", 0)
    monkeypatch.setattr(eager, "_ENOUGH_ROWS", 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("tokens", "items"), [(0, 3), (1, 1), (1, 9), (5, 7), (7, 1), (33, 20)])
def test_matches_the_reference(matches_reference, small_chunks, backend, reduction, tokens, items):
    target = make_target(tokens, items)

    def call(**inputs):
        loss = linear_cross_entropy(**inputs, target=target, reduction=reduction)
        # "none" has no gradient: adding one makes the comparison of outputs work alike
        return loss if reduction == "mean" else loss + inputs["hidden"].sum() * 0 + inputs["weight"].sum() * 0

    matches_reference(call, make_inputs(tokens, items), backend)


def test_matches_the_reference_in_bfloat16(matches_reference, small_chunks):
    target = make_target(33, 20)
    inputs = make_inputs(33, 20, torch.bfloat16)
    matches_reference(lambda **xs: linear_cross_entropy(**xs, target=target), inputs, "eager")
    assert linear_cross_entropy(**inputs, target=target).dtype == torch.float32


def test_gradients_agree_with_finite_differences(small_chunks):
    target = make_target(12, 9)
    leaves = [x.requires_grad_() for x in make_inputs(12, 9, torch.float64).values()]
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, target), leaves)
    for only in range(2):  # one of the two inputs frozen
        inputs = [x.detach().requires_grad_(i == only) for i, x in enumerate(leaves)]
        assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, target), inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_is_torchs_cross_entropy(backend):
    inputs, target = make_inputs(40, 11), make_target(40, 11)
    logits = inputs["hidden"] @ inputs["weight"].t()
    with use_backend(backend):
        for reduction in ("mean", "none"):
            expected = cross_entropy(logits, target, reduction=reduction)
            torch.testing.assert_close(linear_cross_entropy(**inputs, target=target, reduction=reduction), expected)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_uniform_logits_cost_the_logarithm_of_the_catalogue(backend):
    with use_backend(backend):
        loss = linear_cross_entropy(torch.zeros(4, WIDTH), torch.randn(50, WIDTH), torch.tensor([0, 49, 7, 7]))
    assert loss.item() == pytest.approx(3.912023)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_far_beyond_the_range_of_exp(backend):
    """Targets 2,000 nats below the best item, and 2,000 above all others."""
    hidden = torch.tensor([[2000.0], [2000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]], requires_grad=True)
    with use_backend(backend):
        losses = linear_cross_entropy(hidden, weight, torch.tensor([1, 0]), reduction="none")
        linear_cross_entropy(hidden, weight, torch.tensor([1, 0])).backward()
    assert losses.tolist() == [2000.0, 0.0]
    assert hidden.grad.flatten().tolist() == [0.5, 0.0]
    assert weight.grad.flatten().tolist() == [1000.0, -1000.0, 0.0]


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_without_a_counted_token_the_loss_and_its_gradients_are_zero(backend):
    hidden, weight = (x.requires_grad_() for x in make_inputs(3, 4).values())
    with use_backend(backend):
        loss = linear_cross_entropy(hidden, weight, torch.full((3,), -1), ignore_index=-1)
        loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any() and not weight.grad.any()


@settings(max_examples=20)
@given(tokens=st.integers(1, 40), items=st.integers(1, 30), rows=st.integers(1, 9))
def test_chunks_do_not_change_the_result(tokens, items, rows):
    leaves = [x.requires_grad_() for x in make_inputs(tokens, items, torch.float64).values()]
    target = make_target(tokens, items)

    def results():
        loss = linear_cross_entropy(*leaves, target)
        return loss, *torch.autograd.grad(3 * loss, leaves)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "_CACHE_BYTES", 0)
        patch.setattr(eager, "_ENOUGH_ROWS", rows)
        chunked = results()
    torch.testing.assert_close(chunked, results())


def test_two_backward_passes_give_the_same_gradient_twice():
    hidden, weight = (x.requires_grad_() for x in make_inputs(8, 5).values())
    loss = linear_cross_entropy(hidden, weight, make_target(8, 5))
    once = torch.autograd.grad(loss, [hidden, weight], retain_graph=True)
    halved = torch.autograd.grad(loss / 2, [hidden, weight], retain_graph=True)
    again = torch.autograd.grad(loss, [hidden, weight])
    torch.testing.assert_close(again, once)
    torch.testing.assert_close(halved, tuple(g / 2 for g in once))


def test_logits_take_no_more_memory_than_stated():
    """13,000 items, 4,000 tokens: the whole logits are 208 MB, a chunk 8 MB."""
    sizes = [logits.shape for _, logits in eager._logits(torch.zeros(4000, 2), torch.zeros(13000, 2), None)]
    assert sum(rows for rows, _ in sizes) == 4000
    assert max(rows * columns * 4 for rows, columns in sizes) <= 8 << 20
    few = next(iter(eager._logits(torch.zeros(300, 1), torch.zeros(1 << 20, 1), None)))[1]
    assert few.shape[0] * few.shape[1] * 4 <= 256 << 20


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("hidden", torch.zeros(6, 2, WIDTH), ValueError),
        ("weight", torch.zeros(4, WIDTH + 1), ValueError),
        ("weight", torch.zeros(0, WIDTH), ValueError),
        ("weight", torch.zeros(4, WIDTH, dtype=torch.bfloat16), TypeError),
        ("target", torch.zeros(5, dtype=torch.int64), ValueError),
        ("target", torch.zeros(6, dtype=torch.int32), TypeError),
        ("target", torch.tensor([0, 1, 2, 3, 4, 0]), ValueError),
        ("target", torch.tensor([0, 1, 2, 3, -1, 0]), ValueError),
        ("ignore_index", None, TypeError),
        ("reduction", "sum", ValueError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {**make_inputs(6, 4), "target": torch.zeros(6, dtype=torch.int64), name: bad}
    with pytest.raises(error, match=rf"^{name}\b"):
        linear_cross_entropy(**arguments)
