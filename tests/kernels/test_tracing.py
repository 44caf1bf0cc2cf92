"""What torch.compile does with functions that it may not look into, and that none of its code is imported for them."""

from __future__ import annotations

import pytest
import torch
from torch.compiler import is_compiling

from uqabench.kernels.tracing import constant_when_traced, never_traced


def test_a_constant_is_asked_for_once_and_not_traced():
    torch.compiler.reset()
    asked = []

    @constant_when_traced
    def factor(name: str) -> float:
        asked.append((name, is_compiling()))
        return 3.0

    compiled = torch.compile(lambda x: x * factor("x"), backend="eager", fullgraph=True)
    for _ in range(2):
        assert compiled(torch.ones(2)).tolist() == [3.0, 3.0]
    assert [name for name, _ in asked] == ["x"]


def test_a_function_that_is_never_traced_ends_the_graph():
    torch.compiler.reset()

    @never_traced
    def host(x: torch.Tensor, *, factor: float) -> torch.Tensor:
        assert not is_compiling()
        return x * (factor if x.sum().item() > 0 else -factor)

    def whole(x: torch.Tensor) -> torch.Tensor:
        return host(x + 1, factor=2.0) - 1

    assert host.__name__ == "host"
    graphs = torch._dynamo.explain(whole)(torch.ones(2))
    assert graphs.graph_count == 2 and graphs.graph_break_count == 1
    compiled = torch.compile(whole, backend="eager")
    assert compiled(torch.ones(2)).tolist() == whole(torch.ones(2)).tolist() == [3.0, 3.0]
    assert compiled(-3 * torch.ones(2)).tolist() == [3.0, 3.0]
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(whole, backend="eager", fullgraph=True)(torch.ones(2))
