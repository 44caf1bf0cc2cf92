"""Linear layers by oneDNN against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from uqabench.llm import products
from uqabench.llm.products import use_onednn


@pytest.fixture
def faster(monkeypatch):
    """oneDNN is asked for on every machine that has it."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "_is_faster", lambda: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "inner", "outer"), [((3, 17), 24, 40), ((64,), 40, 24), ((1, 5), 8, 8), ((601,), 16, 8)]
)
def test_results_and_gradients_are_those_of_torch(faster, bias, rows, inner, outer):
    torch.manual_seed(0)
    own = nn.Linear(inner, outer, bias=bias)
    fast = copy.deepcopy(own)
    assert use_onednn(fast) == 1
    assert isinstance(fast, nn.Linear) and list(fast.state_dict()) == list(own.state_dict())
    x = torch.randn(*rows, inner, dtype=torch.float64)
    gradient = torch.randn(*rows, outer)
    found = []
    for layer in (own.double(), fast):
        dtype = layer.weight.dtype
        given = x.to(dtype).requires_grad_()
        y = layer(given)
        found.append((y, torch.autograd.grad(y, [given, *layer.parameters()], gradient.to(dtype))))
    torch.testing.assert_close(found[1][0].double(), found[0][0], rtol=1e-5, atol=1e-5)
    for mine, exact in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


def test_batches_of_all_lengths_have_few_shapes(faster, monkeypatch):
    """oneDNN keeps something for each shape that it meets."""
    seen, linear = set(), products._linear

    def watched(x, weight, bias=None):
        seen.add((x.shape, weight.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(products, "_linear", watched)
    layer = nn.Linear(8, 8)
    use_onednn(layer)
    for rows in range(16, 1040):
        layer(torch.zeros(rows, 8))
    assert len(seen) <= 512 // 16 + 1040 // 128


def test_only_the_gradients_that_are_asked_for(faster):
    layer = nn.Linear(8, 8)
    use_onednn(layer)
    layer.requires_grad_(False)
    x = torch.randn(32, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None


def test_autocast_and_other_formats_are_torchs(faster):
    layer = nn.Linear(16, 16)
    use_onednn(layer)
    x = torch.randn(32, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    half = nn.Linear(16, 16, dtype=torch.bfloat16)
    assert use_onednn(half) == 0


def test_subclasses_keep_their_own_forward(faster):
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    assert use_onednn(nn.Sequential(Doubled(4, 4), nn.Linear(4, 4))) == 1
