"""Encoders by name, a user's own encoders, and what happens when a name is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from uqabench.encoders import (
    ENCODER_PRESETS,
    HSTU,
    UserEncoder,
    UserEncoderConfig,
    build_encoder,
    encoder_names,
    register,
    registry,
)
from uqabench.errors import InputError

OWN = """
    import torch
    from torch import nn

    class Mean(nn.Module):
        causal = True

        def __init__(self, width, power=1):
            super().__init__()
            if power > 9:
                raise ValueError("too strong")
            self.power, self.linear = power, nn.Linear(width, width)

        def forward(self, x, offsets, timestamps=None):
            parts = x.split(offsets.diff().tolist())
            return self.linear(torch.cat([p.cumsum(0) / torch.arange(1, len(p) + 1)[:, None] for p in parts]))

    class Short(Mean):
        causal = False

        def forward(self, x, offsets, timestamps=None):
            return x[1:]

    def not_a_module(width):
        return width
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_encoders.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "broken_encoders.py").write_text("import a_package_that_is_not_there\n")
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uqabench.encoders]\nmean = own_encoders:Mean\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_encoders"
    for name in ("own_encoders", "broken_encoders"):
        sys.modules.pop(name, None)


def test_names() -> None:
    assert {"gru4rec", "sasrec", "mamba4rec", "mamba2", "hstu", "trm++"} == set(ENCODER_PRESETS) <= set(encoder_names())
    assert isinstance(build_encoder("hstu"), HSTU)
    assert build_encoder("hstu").config == ENCODER_PRESETS["hstu"]["demo"]


def test_overrides_replace_preset_fields() -> None:
    encoder = build_encoder("sasrec", "tiny", layers=3, dropout=0.0)
    assert len(encoder.layers) == 3 and encoder.config.dropout == 0.0 and encoder.config.inner == 64


def test_registered_class() -> None:
    @register("halver")
    class Halver(nn.Module):
        def __init__(self, width: int, factor: float = 0.5) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: torch.Tensor, offsets: torch.Tensor, timestamps: torch.Tensor | None = None):
            return x * self.factor

    try:
        assert "halver" in encoder_names()
        encoder = build_encoder("halver", "small", factor=0.25)
        assert (encoder.factor, encoder.width, encoder.causal) == (0.25, 256, False)
    finally:
        registry.REGISTRY.classes.pop("halver")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(InputError, match="'hstu' belongs to"):
        register("hstu")(nn.Linear)


@pytest.mark.parametrize("name", ["own_encoders:Mean", "mean"])
def test_own_class_by_path_and_by_entry_point(own_module: str, name: str, catalogue) -> None:
    assert "mean" in encoder_names()
    encoder = build_encoder(name, "tiny", power=2)
    assert (encoder.power, encoder.width, encoder.causal) == (2, 32, True)
    user = UserEncoder.build(UserEncoderConfig(name, "tiny", {"width": 24}), catalogue)
    assert user.causal
    states = user.states(torch.tensor([0, 3, 8, 3]), torch.tensor([0, 3, 4]))
    assert states.shape == (4, 24)
    assert user.queries(states).shape == (4, 16)


def test_own_class_with_a_wrong_output(own_module: str, catalogue) -> None:
    user = UserEncoder.build(UserEncoderConfig("own_encoders:Short", "tiny"), catalogue)
    assert not user.causal
    with pytest.raises(InputError, match=r"own_encoders:Short returned \(1, 32\).*\(2, 32\)"):
        user.states(torch.tensor([0, 3]), torch.tensor([0, 2]))


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("hsut", {}, r"'hsut' is unknown \(did you mean 'hstu'\?\).*gru4rec, .*package\.module:Class"),
        ("zzz", {}, r"'zzz' is unknown: choose one of bag-of-items, gru4rec"),
        ("hstu", {"head": 2}, r"hstu has no setting 'head' \(did you mean 'heads'\?\)"),
        ("own_encoders:Mena", {}, r"own_encoders has no class 'Mena' \(did you mean 'Mean'\?\)"),
        ("own_encoders:", {}, "own_encoders has no class ''"),
        ("no_such_module:Mean", {}, "ModuleNotFoundError: No module named 'no_such_module'.*PYTHONPATH"),
        ("broken_encoders:Mean", {}, "a_package_that_is_not_there"),
        ("own_encoders:Mean", {"depth": 2}, r"Mean\(width=128, depth=2\): TypeError.*'depth'"),
        ("own_encoders:Mean", {"power": 10}, "ValueError: too strong"),
        ("own_encoders:not_a_module", {}, "is a int: it must be a torch.nn.Module"),
        (":Mean", {}, "cannot be imported"),
    ],
)
def test_wrong_names(own_module: str, name: str, overrides: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        build_encoder(name, **overrides)
    assert "\n" not in str(raised.value)


def test_wrong_preset() -> None:
    with pytest.raises(InputError, match="'big' is unknown: choose one of tiny, demo, small, published, paper"):
        build_encoder("hstu", "big")


def test_import_needs_no_transformers() -> None:
    code = """
        import sys
        sys.modules["transformers"] = None  # importing it now raises ImportError
        from uqabench.encoders import HSTU, build_encoder
        assert isinstance(build_encoder("hstu", "tiny"), HSTU)
        assert sys.modules["transformers"] is None
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
