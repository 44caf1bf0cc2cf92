"""The compiled module's quick answers about tensors agree with what Python finds when it looks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from uqabench.kernels import checks, info_nce, native, swiglu, tensors, use_backend

pytestmark = pytest.mark.skipif(not tensors.KNOWN, reason="torch before 2.10 does not describe its tensors")


class Subclass(torch.Tensor):
    pass


def make_tensors():
    base = torch.arange(24.0).view(4, 6)
    with FakeTensorMode():
        fake = torch.zeros(4, 6)
    return {
        "dense": base,
        "parameter": torch.nn.Parameter(base.clone()),
        "rows of a wider table": base[:, :3],
        "transposed": base.t(),
        "one column": base[:, ::6],
        "empty": base[:0],
        "no width": base[:, :0],
        "scalar": base[0, 0],
        "vector": base[0],
        "every other": base[0, ::2],
        "integers": base.long(),
        "narrow integers": base.int(),
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "complex": base.to(torch.complex64),
        "sparse": base.to_sparse(),
        "sparse rows": base.to_sparse_csr(),
        "without memory": base.to("meta"),
        "fake": fake,
        "subclass": base.as_subclass(Subclass),
        "number": 1.0,
        "absent": None,
    }


TENSORS = make_tensors()
SHAPES = [(4, 6), (4, None), (None, None), (None,), (6,), (), (4, 3), (4, 6, 1), (0, 6), (2**70, 6)]
DTYPES = [checks.FLOATING, (torch.float32,), (torch.int64,), (torch.int32, torch.float16)]
# Python looks at these, so "no" to them says nothing.
STRANGERS = {"narrow integers", "complex", "sparse", "sparse rows", "without memory", "fake", "subclass"}


def passes(check, *arguments) -> bool:
    try:
        check(*arguments)
    except (TypeError, ValueError):
        return False
    return True


@pytest.fixture
def slowly(monkeypatch):
    """Checks that ask no quick question."""
    for name in ("fits", "are_rows", "are_alike", "fit_like", "do_rise", "do_lie_below"):
        monkeypatch.setattr(checks, name, lambda *_: False)


@pytest.mark.parametrize("kind", TENSORS)
def test_shapes_and_dtypes(slowly, kind):
    x = TENSORS[kind]
    for shape, dtypes in itertools.product(SHAPES, DTYPES):
        expected = passes(checks.check_tensor, x, "x", shape, dtypes) and kind not in STRANGERS
        assert tensors.fits(x, shape, dtypes) == expected, (shape, dtypes)
    expected = passes(checks.check_rows, x, "x") and kind not in STRANGERS
    assert tensors.are_rows(x, checks.FLOATING) == expected


@pytest.mark.parametrize("kind", sorted(TENSORS.keys() - STRANGERS - {"number", "absent"}))
def test_dtypes_and_devices_of_two(slowly, kind):
    for other, x in TENSORS.items():
        for dtype in (True, False):
            if other in STRANGERS | {"number"}:
                assert not (dtype and tensors.are_alike(TENSORS[kind], dtype, None, x))
            else:
                expected = passes(lambda: checks.check_same(TENSORS[kind], "first", dtype=dtype, other=x))  # noqa: B023
                assert tensors.are_alike(TENSORS[kind], dtype, None, x) == expected


@pytest.mark.parametrize("kind", sorted(TENSORS.keys() - STRANGERS - {"number", "absent"}))
def test_tensors_beside_another(slowly, kind):
    first = TENSORS[kind]
    for (other, x), shape, dtypes in itertools.product(TENSORS.items(), SHAPES, [None, *DTYPES]):
        others = {"a": None, "b": (x, shape)}
        expected = passes(lambda: checks.check_like(first, "first", dtypes, **others))  # noqa: B023
        assert tensors.fit_like(first, dtypes, others) == (expected and other not in STRANGERS), (other, shape, dtypes)


@pytest.mark.parametrize(
    "values", [[0, 5], [0, 0, 5, 5], [0], [], [1, 5], [0, 4], [0, 6], [0, 3, 2, 5], [-1, 5], [0, -1, 5]]
)
def test_offsets(slowly, values):
    offsets, tokens = torch.tensor(values, dtype=torch.int64), torch.zeros(5, 2)
    assert tensors.do_rise(offsets, tokens) == passes(checks.check_offsets, offsets, tokens)
    assert not tensors.do_rise(offsets.int(), tokens)


@pytest.mark.parametrize("ignored", [None, -100, 2])
@pytest.mark.parametrize("values", [[], [0, 4], [-1], [5], [-100, 1], [2, 2]])
def test_indices(slowly, values, ignored):
    ids = torch.tensor(values, dtype=torch.int64)
    expected = passes(checks.check_indices, ids, 5, "ids", ignored)
    assert tensors.do_lie_below(ids, 5, ignored) == expected
    assert not tensors.do_lie_below(ids, 2**70, ignored)


def test_many_indices_are_remembered():
    ids = torch.zeros(100_000, dtype=torch.int64)
    assert not tensors.do_lie_below(ids, 5, None)
    checks.check_indices(ids, 5, "ids")
    assert "_uqabench" in ids.__dict__


def test_wrong_calls_are_errors():
    with pytest.raises(TypeError, match="fits takes 3 arguments, not 1"):
        tensors.fits(1)


def test_what_a_call_must_go_through_torch_for():
    x, leaf = torch.zeros(2), torch.zeros(2).requires_grad_()
    for plain, wants in ((tensors.are_plain, tensors.want_gradients), (tensors._are_plain, tensors._want_gradients)):
        assert plain((x, leaf, torch.nn.Parameter(x), None, 1.0)) and not plain((x, x.as_subclass(Subclass)))
        assert wants((None, x, leaf)) and wants((torch.nn.Parameter(x),)) and not wants((x, None, 1.0))


def test_numpy_views_give_the_same(monkeypatch):
    hidden, positives, ids = torch.randn(5, 3), torch.randn(5, 3), torch.arange(5)
    with use_backend("native"):
        expected = info_nce(hidden, positives, ids, None, 0.5)
        monkeypatch.setattr(native, "KNOWN", False)
        assert torch.equal(info_nce(hidden.requires_grad_(), positives, ids, None, 0.5), expected)


def test_numpy_views_of_bf16_give_the_same(monkeypatch):
    gate, up = torch.randn(2, 5, 3).bfloat16().unbind()
    with use_backend("native"):
        expected = swiglu(gate, up)
        monkeypatch.setattr(native, "KNOWN", False)
        y = swiglu(gate, up.requires_grad_())
        assert torch.equal(y, expected) and torch.autograd.grad(y.sum(), up)[0].dtype == torch.bfloat16


def test_subclasses_without_a_say_work():
    x = torch.randn(3, 4)
    with use_backend("native"):
        assert torch.equal(swiglu(x.as_subclass(Subclass), x), swiglu(x, x))


def test_negated_memory_is_not_read_as_it_is():
    x = torch.complex(torch.ones(3, 1), torch.ones(3, 1)).conj().imag
    assert x.is_neg()
    with use_backend("native"), pytest.raises(RuntimeError, match="resolve_neg"):
        swiglu(x, x)


def test_values_are_not_read_while_a_graph_is_captured(monkeypatch):
    class OnCuda:
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert checks.are_values_hidden(OnCuda()) and not checks.are_values_hidden(torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert not checks.are_values_hidden(OnCuda())
