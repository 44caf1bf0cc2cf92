"""Integrations by name, a user's own, and what happens when one is wrong."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from uqabench.errors import InputError
from uqabench.integrations import (
    Integration,
    MeanPooling,
    check_integration,
    find_integration,
    integration_names,
    register,
    registry,
)

OWN = """
    import torch
    from torch import nn
    from uqabench.integrations import Integration, Pooling

    def largest(states, offsets):
        parts = states.split(offsets.diff().tolist())
        return torch.stack([part.amax(0, keepdim=True) if len(part) else states.new_zeros(1, states.shape[1])
                            for part in parts])

    class Largest(Integration):
        pooling = Pooling("largest", 1, largest)

        def n_tokens(self, settings):
            return 1

        def build(self, width, llm_width, token_rms, settings):
            return nn.Linear(width, llm_width)

    class Short(Largest):
        def n_tokens(self, settings):
            return 2

    class Broken(Largest):
        def build(self, width, llm_width, token_rms, settings):
            raise ValueError("no such luck")

    class Wrong(Largest):
        pooling = Pooling("wrong", 2, largest)

    class Demanding(Largest):
        def __init__(self, size):
            self.size = size

    class NoIntegration:
        pass
"""


@dataclass(frozen=True)
class Settings:
    n_queries: int = 3


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_integrations.py").write_text(textwrap.dedent(OWN))
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uqabench.integrations]\nlargest = own_integrations:Largest\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_integrations"
    sys.modules.pop("own_integrations", None)


@pytest.mark.parametrize("name", integration_names())
@pytest.mark.parametrize("width", [12, 32])
def test_every_built_in_one_works_at_any_width(name, width):
    integration = find_integration(name)
    check_integration(name, width, Settings())
    assert integration.needs_states == (integration.pooling is None)
    assert integration.kept == ("states" if integration.needs_states else integration.pooling.name)


def test_the_papers_two_are_known():
    assert {"mean-pooling", "q-former"} <= set(integration_names())
    assert isinstance(find_integration("mean-pooling"), MeanPooling)
    assert find_integration("q-former").needs_states and not find_integration("mean-pooling").needs_states
    assert find_integration("q-former").n_tokens(Settings(7)) == 7


@pytest.mark.parametrize("name", ["own_integrations:Largest", "largest"])
def test_own_class_by_path_and_by_entry_point(own_module, name):
    assert "largest" in integration_names()
    check_integration(name, 8, Settings())
    assert find_integration(name).kept == "largest"


def test_registered_class():
    @register("test-nothing")
    class Nothing(MeanPooling):
        pass

    try:
        assert isinstance(find_integration("test-nothing"), Nothing)
    finally:
        registry.REGISTRY.classes.pop("test-nothing")
    with pytest.raises(InputError, match="integration name 'q-former' belongs to uqabench.integrations.q_former:QF"):
        register("q-former")(MeanPooling)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean-pool", r"The integration 'mean-pool' is unknown \(did you mean 'mean-pooling'\?\): choose one of"),
        ("sum", r"'sum' is unknown: choose one of .*mean-pooling, .*or give your own class as package\.module:Class"),
        ("own_integrations:Lagest", r"has no class 'Lagest' \(did you mean 'Largest'\?\)"),
        ("no_such_module:X", "The integration no_such_module:X cannot be imported .*PYTHONPATH"),
        ("own_integrations:NoIntegration", "is a NoIntegration: it must be a uqabench.integrations.Integration"),
        ("own_integrations:Demanding", r"cannot be made as Demanding\(\): TypeError.*'size'"),
        ("own_integrations:Short", r"The adapter of own_integrations:Short returned \(2, 1, 8\).*\(2, 2, 8\)"),
        ("own_integrations:Broken", "fails on states of width 8: ValueError: no such luck"),
        ("own_integrations:Wrong", r"The pooling wrong returned \(2, 1, 8\)"),
    ],
)
def test_wrong_ones_are_named(own_module, name, message):
    with pytest.raises(InputError, match=message) as raised:
        check_integration(name, 8, Settings())
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_an_integration_must_say_how_it_is_built():
    with pytest.raises(TypeError, match="abstract"):
        Integration()
