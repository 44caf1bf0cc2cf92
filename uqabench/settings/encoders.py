"""Settings of encoders: one section an encoder, and the presets `tiny demo small published paper` of each.

`published` follows the code that the UQABench authors published (width 512, N = 512), `paper` the text of the paper
where the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from uqabench.errors import InputError, nearest
from uqabench.settings.schema import MAX_LENGTH, section, setting
from uqabench.settings.sentences import name_shown

PRESET_NAMES = ("tiny", "demo", "small", "published", "paper")
INPUTS = ("full", "without-text", "without-side")
MAX_SIZE = 65_536
"""Largest width of any part of a model."""


@section()
class EncoderConfig:
    """What every encoder has."""

    width: int = setting(512, "size of the states that the encoder takes and gives", ge=1, le=MAX_SIZE)
    layers: int = setting(4, "number of layers", ge=1, le=1024)
    dropout: float = setting(0.1, "dropout probability while training", ge=0, lt=1)
    max_len: int = setting(
        512, "longest sequence N in items; a constant of HSTU and SASRec, others take any length", ge=1, le=MAX_LENGTH
    )
    init_std: float = setting(0.02, "standard deviation of the matrices' Gaussian initialisation", gt=0, le=100)


@section()
class GRU4RecConfig(EncoderConfig):
    """GRU layers of `hidden` units, then a projection to `width`."""

    layers: int = setting(2, "number of GRU layers (the published code has 2, the paper says 3)", ge=1, le=1024)
    hidden: int = setting(1024, "units of each GRU layer", ge=1, le=MAX_SIZE)


@section()
class SASRecConfig(EncoderConfig):
    """Post-norm Transformer layers with learned positions."""

    layers: int = setting(6, "number of Transformer layers", ge=1, le=1024)
    heads: int = setting(8, "attention heads; must divide width", ge=1, le=MAX_SIZE)
    inner: int = setting(1536, "width between the two feed-forward projections", ge=1, le=MAX_SIZE)

    def __post_init__(self) -> None:
        _require_divisor(self.heads, "heads", self.width, "width")


@section()
class Mamba4RecConfig(EncoderConfig):
    """Mamba-1 (S6) blocks, each followed by a feed-forward network."""

    state: int = setting(32, "state size N of each channel", ge=1, le=MAX_SIZE)
    conv: int = setting(4, "taps of the causal depthwise convolution", ge=1, le=MAX_SIZE)
    expand: int = setting(2, "inner channels as a multiple of width", ge=1, le=1024)
    dt_rank: int | None = setting(
        None, "rank of the step-size projection; null: width / 16, rounded up", ge=1, le=MAX_SIZE
    )
    inner: int = setting(2048, "width between the two feed-forward projections", ge=1, le=MAX_SIZE)


@section()
class Mamba2Config(EncoderConfig):
    """Mamba-2 (SSD) blocks on a pre-norm residual stream."""

    state: int = setting(128, "state size N of each head", ge=1, le=MAX_SIZE)
    conv: int = setting(4, "taps of the causal depthwise convolution", ge=1, le=MAX_SIZE)
    expand: int = setting(2, "inner channels as a multiple of width", ge=1, le=1024)
    head_dim: int = setting(64, "channels of a head; must divide expand * width", ge=1, le=MAX_SIZE)

    def __post_init__(self) -> None:
        _require_divisor(self.head_dim, "head_dim", self.expand * self.width, "expand * width")


@section()
class HSTUConfig(EncoderConfig):
    """Hierarchical sequential transduction units with SiLU attention."""

    heads: int = setting(8, "attention heads", ge=1, le=MAX_SIZE)
    qk_dim: int = setting(256, "query and key size of a head", ge=1, le=MAX_SIZE)
    v_dim: int = setting(256, "value and gate size of a head", ge=1, le=MAX_SIZE)
    bias: str = setting(
        "auto",
        "auto: relative position and time bias whenever timestamps are given; none: never",
        choices=("auto", "none"),
    )
    time_buckets: int = setting(
        128, "buckets of the logarithmic time gap (the table has one row more)", ge=1, le=MAX_SIZE
    )


@section()
class TrmPPConfig(EncoderConfig):
    """Pre-norm Transformer with RoPE, RMSNorm and SwiGLU."""

    heads: int = setting(4, "attention heads; width / heads must be an even integer", ge=1, le=MAX_SIZE)
    inner: int | None = setting(
        None, "SwiGLU width; null: 8/3 width, rounded up to a multiple of 256", ge=1, le=MAX_SIZE
    )
    rope_base: float = setting(10000.0, "base of the rotary frequencies", ge=1, le=1e9)

    def __post_init__(self) -> None:
        _require_divisor(self.heads, "heads", self.width, "width")
        if self.width // self.heads % 2:
            raise ValueError(
                f"heads is {self.heads}: it must be such that width / heads is even, and width is {self.width}."
            )

    @property
    def inner_width(self) -> int:
        """`inner`, or the published rule: 8/3 of the width rounded up to a multiple of 256 (1,536 for 512)."""
        return self.inner or -(-(8 * self.width // 3) // 256) * 256


def _require_divisor(value: int, name: str, size: int, what: str) -> None:
    if size % value:
        raise ValueError(f"{name} is {value}: it must be a divisor of the {what}, {size}.")


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


ENCODER_PRESETS: dict[str, dict[str, EncoderConfig]] = {
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


def encoder_config(name: str, preset: str, overrides: Mapping[str, Any]) -> EncoderConfig:
    """The settings of a built-in encoder: its preset with `overrides` laid over it.

    Raises InputError for an override that the encoder does not have, or a value outside its range.
    """
    config = ENCODER_PRESETS[name][preset]
    known = [field.name for field in fields(config)]
    for key in overrides:
        if key not in known:
            raise InputError(
                f"The encoder {name} has no setting '{name_shown(key)}'{nearest(key, known)}: {', '.join(known)}."
            )
    return replace(config, **overrides)


@section("pretrain.encoder")
class UserEncoderConfig:
    """Everything that, with a catalogue, determines a user encoder's shapes."""

    encoder: str = setting("hstu", "a registered name or package.module:Class; in a run each method sets its own")
    preset: str = setting("demo", "the encoder's shape", choices=PRESET_NAMES)
    overrides: dict[str, Any] = setting(
        default_factory=dict, help="encoder settings that replace those of the preset (listed by encoder below)"
    )
    inputs: str = setting("full", "which features of an item the encoder sees", choices=INPUTS)
    item_dim: int | None = setting(None, "size of item embeddings; null: the preset's", ge=1, le=MAX_SIZE)
    side_dim: int | None = setting(None, "size of side embeddings; null: the preset's", ge=1, le=MAX_SIZE)
    popularity_start: bool = setting(False, "begin with the items' popularity as scores, whatever the history")

    def __post_init__(self) -> None:
        for name, default in zip(("item_dim", "side_dim"), TOWER_DIMS[self.preset], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
