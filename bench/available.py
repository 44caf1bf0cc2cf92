"""Backends that the suites run an operator on."""

from __future__ import annotations

import pytest

from uqabench.kernels import backend


def backends(operator: str) -> pytest.MarkDecorator:
    """Parametrises `chosen` by the backends that can run `operator` on this machine's CPU.

    The float64 reference is left out: it is a specification, one token at a time. So is Triton, which a CPU only
    interprets.
    """
    able = [name for name, problem in backend.available(operator, "cpu").items() if problem is None]
    return pytest.mark.parametrize("chosen", [name for name in able if name not in ("reference", "triton")])
