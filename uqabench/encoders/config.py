"""Encoder shapes: one frozen dataclass an encoder, and the presets `tiny demo small published paper` of each.

`published` follows the code that the UQABench authors published (width 512, N = 512), `paper` the text of the paper
where the two differ. Every field's help text is in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from uqabench.errors import InputError

PRESET_NAMES = ("tiny", "demo", "small", "published", "paper")


def _doc(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class EncoderConfig:
    """What every encoder has. InputError names a field that is out of range."""

    width: int = _doc(512, "size of the states that the encoder takes and gives")
    layers: int = _doc(4, "number of layers")
    dropout: float = _doc(0.1, "dropout probability while training, 0 <= p < 1")
    max_len: int = _doc(512, "longest sequence N in items; a constant of HSTU and SASRec, others take any length")
    init_std: float = _doc(0.02, "standard deviation of the matrices' Gaussian initialisation")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "int":
                self._require(type(value) is int and value >= 1, item.name, "an integer above 0")
            elif item.type == "int | None":
                self._require(value is None or (type(value) is int and value >= 1), item.name, "an integer above 0")
        number = isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1
        self._require(number, "dropout", "a number from 0 to below 1")
        self._require(isinstance(self.init_std, (int, float)) and self.init_std > 0, "init_std", "a number above 0")

    def _require(self, holds: bool, name: str, what: str) -> None:
        if not holds:
            raise InputError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}: it must be {what}.")

    def _require_heads(self, size: int, what: str) -> None:
        heads = self.heads  # type: ignore[attr-defined]
        self._require(size % heads == 0, "heads", f"a divisor of the {what}, {size}")


@dataclass(frozen=True)
class GRU4RecConfig(EncoderConfig):
    """GRU layers of `hidden` units, then a projection to `width`."""

    layers: int = _doc(2, "number of GRU layers (the published code has 2, the paper says 3)")
    hidden: int = _doc(1024, "units of each GRU layer")


@dataclass(frozen=True)
class SASRecConfig(EncoderConfig):
    """Post-norm Transformer layers with learned positions."""

    layers: int = _doc(6, "number of Transformer layers")
    heads: int = _doc(8, "attention heads; must divide width")
    inner: int = _doc(1536, "width between the two feed-forward projections")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_heads(self.width, "width")


@dataclass(frozen=True)
class Mamba4RecConfig(EncoderConfig):
    """Mamba-1 (S6) blocks, each followed by a feed-forward network."""

    state: int = _doc(32, "state size N of each channel")
    conv: int = _doc(4, "taps of the causal depthwise convolution")
    expand: int = _doc(2, "inner channels as a multiple of width")
    dt_rank: int | None = _doc(None, "rank of the step-size projection; None: width / 16, rounded up")
    inner: int = _doc(2048, "width between the two feed-forward projections")


@dataclass(frozen=True)
class Mamba2Config(EncoderConfig):
    """Mamba-2 (SSD) blocks on a pre-norm residual stream."""

    state: int = _doc(128, "state size N of each head")
    conv: int = _doc(4, "taps of the causal depthwise convolution")
    expand: int = _doc(2, "inner channels as a multiple of width")
    head_dim: int = _doc(64, "channels of a head; must divide expand * width")

    def __post_init__(self) -> None:
        super().__post_init__()
        inner = self.expand * self.width
        self._require(inner % self.head_dim == 0, "head_dim", f"a divisor of expand * width, {inner}")


@dataclass(frozen=True)
class HSTUConfig(EncoderConfig):
    """Hierarchical sequential transduction units with SiLU attention."""

    heads: int = _doc(8, "attention heads")
    qk_dim: int = _doc(256, "query and key size of a head")
    v_dim: int = _doc(256, "value and gate size of a head")
    bias: str = _doc("auto", "'auto': relative position and time bias whenever timestamps are given; 'none': never")
    time_buckets: int = _doc(128, "buckets of the logarithmic time gap (the table has one row more)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.bias in ("auto", "none"), "bias", "'auto' or 'none'")


@dataclass(frozen=True)
class TrmPPConfig(EncoderConfig):
    """Pre-norm Transformer with RoPE, RMSNorm and SwiGLU."""

    heads: int = _doc(4, "attention heads; width / heads must be an even integer")
    inner: int | None = _doc(None, "SwiGLU width; None: 8/3 width, rounded up to a multiple of 256")
    rope_base: float = _doc(10000.0, "base of the rotary frequencies")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_heads(self.width, "width")
        even = self.width // self.heads % 2 == 0
        self._require(even, "heads", f"such that width / heads is even, and width is {self.width}")

    @property
    def inner_width(self) -> int:
        """`inner`, or the published rule: 8/3 of the width rounded up to a multiple of 256 (1,536 for 512)."""
        return self.inner or -(-(8 * self.width // 3) // 256) * 256


# 0.02 suits a width of 512. Below it, encoders whose signal passes through the matrices (recurrent and pre-norm ones)
# start faster with 1 / sqrt(width): after 200 steps on a planted log of 2,000 items (width 128, lr 2e-3) cross entropy
# is 4.13 instead of 4.78 for trm++, 4.29 / 4.79 for hstu, 4.26 / 4.46 for gru4rec, 4.14 / 4.20 for mamba2. Post-norm
# encoders, whose signal passes on the residual stream, want 0.02: 4.32 / 4.65 for sasrec, 4.22 / 4.34 for mamba4rec.
_SCALED_STD = {"tiny": 0.18, "demo": 0.09, "small": 0.06}


def _presets(
    published: EncoderConfig,
    tiny: Mapping,
    demo: Mapping,
    small: Mapping,
    paper: Mapping,
    is_scaled: bool = True,
) -> dict[str, EncoderConfig]:
    changes = {
        "tiny": dict(width=32, layers=1, max_len=64) | tiny,
        "demo": dict(width=128, layers=2, max_len=128) | demo,
        "small": dict(width=256, layers=4, max_len=256) | small,
        "published": {},
        "paper": paper,
    }
    if is_scaled:
        for name, std in _SCALED_STD.items():
            changes[name].setdefault("init_std", std)
    return {name: replace(published, **changes[name]) for name in PRESET_NAMES}


PRESETS: dict[str, dict[str, EncoderConfig]] = {
    "gru4rec": _presets(
        GRU4RecConfig(),
        tiny=dict(hidden=48, layers=2),
        # On a year of baskets larger matrices stall: perplexity after 120 steps 4,180 with 0.03, 5,060 with 0.09.
        demo=dict(hidden=192, init_std=0.03),
        small=dict(hidden=320, init_std=0.03),
        paper=dict(layers=3),
    ),
    # The paper states d = 1024 for SASRec, which with 6 layers and inner 1536 would be 44 M parameters, not the
    # "about 20 M" of the same paragraph; the published code has d = 512 (16.0 M), and so has the preset `paper`.
    "sasrec": _presets(
        SASRecConfig(),
        tiny=dict(heads=2, inner=64),
        demo=dict(heads=4, inner=384),
        small=dict(heads=4, inner=768),
        paper={},
        is_scaled=False,
    ),
    # The published code has only Mamba-2; these are the sizes of the Mamba4Rec article (arXiv:2403.03900: state 32,
    # 4 taps, expansion 2, feed-forward 4 * width) at the published width and depth.
    "mamba4rec": _presets(
        Mamba4RecConfig(),
        tiny=dict(state=4, inner=64),
        demo=dict(state=16, inner=256),
        small=dict(state=16, inner=512),
        paper={},
        is_scaled=False,
    ),
    "mamba2": _presets(
        Mamba2Config(),
        tiny=dict(state=8, head_dim=16),
        demo=dict(state=64, head_dim=32, expand=3),
        small=dict(state=64),
        paper={},
    ),
    "hstu": _presets(
        HSTUConfig(bias="none"),
        tiny=dict(heads=2, qk_dim=16, v_dim=16, bias="auto"),
        demo=dict(heads=4, qk_dim=64, v_dim=64, bias="auto"),
        small=dict(heads=4, qk_dim=128, v_dim=128, bias="auto"),
        paper=dict(bias="auto"),
    ),
    "trm++": _presets(
        TrmPPConfig(),
        tiny=dict(heads=2, inner=64),
        demo=dict(inner=384),
        small={},
        paper=dict(layers=8, heads=8),
    ),
}

WIDTHS = {"tiny": 32, "demo": 128, "small": 256, "published": 512, "paper": 512}
TOWER_DIMS = {"tiny": (16, 8), "demo": (64, 32), "small": (128, 64), "published": (128, 64), "paper": (128, 64)}
"""Preset -> (item_dim, side_dim): sizes of the item-id table and of each side table (see `ItemTower`)."""
