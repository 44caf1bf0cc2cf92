from __future__ import annotations

import pytest
import torch

from uqabench.kernels import rms_norm, rope, swiglu, use_backend
from uqabench.kernels.rope import Angles

CASES = [("eager", torch.float64)] + [(b, d) for b in ("eager", "native") for d in (torch.float32, torch.bfloat16)]
ROWS = [0, 1, 33]
RAGGED = [[], [0], [1], [5, 0, 33, 1]]


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def randn(*shapes, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(shape).to(dtype) for shape in shapes]


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("with_residual", [False, True])
def test_rms_norm_matches_the_reference(matches_reference, backend, rows, with_residual, dtype):
    x, weight, residual = randn((rows, 9), (9,), (rows, 9), dtype=dtype)
    inputs = {"x": x, "weight": weight} | ({"residual": residual} if with_residual else {})
    matches_reference(lambda **named: rms_norm(**named, eps=1e-5), inputs, backend)


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("rows", ROWS)
def test_rms_norm_of_a_wider_stream(matches_reference, backend, rows):
    """Bits of what conversions apart give, and gradients in each input's own dtype."""
    x, weight, stream = randn((rows, 9), (9,), (rows, 9))
    inputs = {"x": x.bfloat16(), "weight": weight, "residual": stream}
    matches_reference(rms_norm, inputs, backend)
    with use_backend(backend):
        y, total = rms_norm(**inputs)
        assert torch.equal(total, x.bfloat16() + stream) and total.dtype == torch.float32
        assert torch.equal(y, rms_norm(total, weight).bfloat16())
        assert torch.equal(y, rms_norm(total, weight, dtype=torch.bfloat16))


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_rms_norm_hands_back_the_sum(backend):
    x, weight, residual = randn((4, 9), (9,), (4, 9))
    with use_backend(backend):
        y, total = rms_norm(x, weight, residual=residual)
        assert torch.equal(total, x + residual)
        assert torch.equal(y, rms_norm(total, weight))


def test_rms_norm_of_zeros_is_zero():
    assert torch.equal(rms_norm(torch.zeros(2, 3), torch.ones(3), eps=1e-5), torch.zeros(2, 3))


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_swiglu_matches_the_reference(matches_reference, backend, rows, dtype):
    gate, up = randn((rows, 9), (rows, 9), dtype=dtype)
    matches_reference(swiglu, {"gate": gate, "up": up}, backend)


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_swiglu_of_both_side_by_side(matches_reference, backend, rows, dtype):
    (both,) = randn((rows, 18), dtype=dtype)
    matches_reference(swiglu, {"gate": both}, backend)
    with use_backend(backend):
        assert torch.equal(swiglu(both), swiglu(*both.chunk(2, dim=-1)))


@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_rope_matches_the_reference(matches_reference, backend, lengths, dtype):
    q, k = randn((sum(lengths), 2, 8), (sum(lengths), 1, 8), dtype=dtype)
    offsets = offsets_of(lengths)
    matches_reference(lambda q, k: rope(q, k, offsets), {"q": q, "k": k}, backend)


@pytest.mark.parametrize("backend", ["reference", "eager", "native"])
def test_rope_begins_each_sequence_at_position_0(backend):
    q, k = randn((12, 2, 8), (12, 2, 8))
    with use_backend(backend):
        packed = rope(q, k, offsets_of([5, 0, 7]))
        alone = rope(q[5:], k[5:], offsets_of([7]))
    for whole, part in zip(packed, alone, strict=True):
        torch.testing.assert_close(whole[5:], part)
    assert torch.equal(packed[0][[0, 5]], q[[0, 5]])


def test_rope_products_depend_on_the_distance_only():
    """Su et al. 2021, equation 11, as far out as the longest history."""
    q, k = (x.expand(600, 1, 16).contiguous() for x in randn((1, 1, 16), (1, 1, 16)))
    q, k = (x[:, 0] for x in rope(q, k, offsets_of([600])))
    scores = q @ k.T
    torch.testing.assert_close(scores[512, 500], scores[12, 0], rtol=1e-4, atol=1e-4)


def test_rope_is_half_split():
    q = torch.zeros(2, 1, 4)
    q[1, 0, 0] = 1
    rotated, _ = rope(q, q, offsets_of([2]), base=100.0)
    expected = torch.tensor([torch.cos(torch.tensor(1.0)), 0, torch.sin(torch.tensor(1.0)), 0])
    torch.testing.assert_close(rotated[1, 0], expected)


def test_gradcheck():
    x, weight, y = (t.requires_grad_() for t in randn((3, 4), (4,), (3, 4), dtype=torch.float64))
    q, k = (t.requires_grad_() for t in randn((3, 1, 4), (3, 1, 4), dtype=torch.float64))
    offsets = offsets_of([2, 1])
    assert torch.autograd.gradcheck(lambda *a: rms_norm(a[0], a[1], residual=a[2]), (x, weight, y))
    assert torch.autograd.gradcheck(swiglu, (x, y))
    assert torch.autograd.gradcheck(lambda q, k: rope(q, k, offsets), (q, k))


def test_they_compile_into_one_graph():
    offsets = offsets_of([2, 3])

    def block(x, weight):
        q, k = rope(x.unflatten(1, (2, 4)), x.unflatten(1, (2, 4)), offsets)
        return rms_norm(swiglu(q.flatten(1), k.flatten(1)), weight)

    x, weight = randn((5, 8), (8,))
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x, weight), block(x, weight))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, o: rms_norm(x, torch.ones(3)), ValueError, r"weight must have shape \(4,\)"),
        (lambda x, o: rms_norm(x, torch.ones(4).double()), TypeError, "weight is float64, but x is float32"),
        (lambda x, o: rms_norm(x, torch.ones(4), residual=x[:1]), ValueError, "residual must have shape"),
        (lambda x, o: rms_norm(x, torch.ones(4), eps=None), TypeError, "eps must be a number"),
        (lambda x, o: rms_norm(x, torch.ones(4), residual=x.bfloat16()), TypeError, "residual is torch.bfloat16"),
        (
            lambda x, o: rms_norm(x.bfloat16(), x[0].bfloat16(), residual=x),
            TypeError,
            "weight is bfloat16, but residual",
        ),
        (lambda x, o: rms_norm(x, torch.ones(4), dtype=torch.int32), TypeError, "dtype must be a floating dtype"),
        (lambda x, o: rms_norm(x, torch.ones(4), residual=x, dtype=x.dtype), TypeError, "without a residual only"),
        (lambda x, o: swiglu(x, x[:, :2]), ValueError, "up must have shape"),
        (lambda x, o: swiglu(x[:, :3].contiguous()), ValueError, "gate must have an even last dimension"),
        (lambda x, o: swiglu(x.long(), x), TypeError, "gate must be float32"),
        (lambda x, o: rope(x, x, o), ValueError, "q must have shape"),
        (lambda x, o: rope(x[:, None, :3], x[:, None, :3], o), ValueError, "q must have an even last dimension"),
        (lambda x, o: rope(x[:, None], x[:3, None], o), ValueError, r"k must have shape \(5, \*, 4\)"),
        (lambda x, o: rope(x[:, None], x[:, None], o[:1]), ValueError, "offsets must end at"),
        (lambda x, o: rope(x[:, None], x[:, None], o, base=0), ValueError, "base must be above 0"),
        (
            lambda x, o: rope(x[:, None], x[:, None], o, 9.0, Angles(o, x)),
            ValueError,
            r"angles.positions must have shape",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(5, 4), torch.tensor([0, 5]))
