"""How tensors reach the compiled module, and what a call must go through torch for."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import swiglu, use_backend
from uqabench.kernels.native import as_array
from uqabench.kernels.operator import is_traced


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_an_array_is_the_tensor_s_memory(dtype):
    x = torch.arange(24).view(4, 6).to(dtype)
    view = as_array(x[1:, ::2])
    assert view.shape == (3, 3) and [stride // view.itemsize for stride in view.strides] == [6, 2]
    view[...] = 0
    assert not x[1:, ::2].any() and x[0].sum() == 15


def test_what_requires_a_gradient_is_written_to():
    leaf = torch.nn.Parameter(torch.zeros(3))
    as_array(leaf)[1] = 5
    assert leaf.tolist() == [0, 5, 0]


def test_what_a_call_must_go_through_torch_for():
    x, leaf = torch.zeros(2), torch.zeros(2).requires_grad_()
    assert not is_traced((x, leaf, torch.nn.Parameter(x), None, 1.0)) and is_traced((x, x.as_subclass(Subclass)))


def test_bf16_keeps_its_type():
    gate, up = torch.randn(2, 5, 3).bfloat16().unbind()
    with use_backend("native"):
        y = swiglu(gate, up.requires_grad_())
        assert y.dtype == torch.autograd.grad(y.sum(), up)[0].dtype == torch.bfloat16


def test_subclasses_without_a_say_work():
    x = torch.randn(3, 4)
    with use_backend("native"):
        assert torch.equal(swiglu(x.as_subclass(Subclass), x), swiglu(x, x))


def test_negated_memory_is_not_read_as_it_is():
    x = torch.complex(torch.ones(3, 1), torch.ones(3, 1)).conj().imag
    assert x.is_neg()
    with use_backend("native"), pytest.raises(RuntimeError, match="resolve_neg"):
        swiglu(x, x)
