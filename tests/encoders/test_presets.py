"""The published and the paper's shapes, parameter counts and initialisation."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn

from uqabench.data.catalogue import Catalogue
from uqabench.encoders import (
    ENCODER_PRESETS,
    PRESET_NAMES,
    GRU4RecConfig,
    HSTUConfig,
    Mamba2Config,
    Mamba4RecConfig,
    SASRecConfig,
    TrmPPConfig,
    UserEncoder,
    UserEncoderConfig,
    build_encoder,
)
from uqabench.errors import InputError
from uqabench.settings import from_dict, to_dict

PUBLISHED = {
    "gru4rec": GRU4RecConfig(width=512, layers=2, dropout=0.1, max_len=512, init_std=0.02, hidden=1024),
    "sasrec": SASRecConfig(width=512, layers=6, dropout=0.1, max_len=512, init_std=0.02, heads=8, inner=1536),
    "mamba4rec": Mamba4RecConfig(
        width=512, layers=4, dropout=0.1, max_len=512, init_std=0.02, state=32, conv=4, expand=2, inner=2048
    ),
    "mamba2": Mamba2Config(
        width=512, layers=4, dropout=0.1, max_len=512, init_std=0.02, state=128, conv=4, expand=2, head_dim=64
    ),
    "hstu": HSTUConfig(
        width=512, layers=4, dropout=0.1, max_len=512, init_std=0.02, heads=8, qk_dim=256, v_dim=256, bias="none"
    ),
    "trm++": TrmPPConfig(width=512, layers=4, dropout=0.1, max_len=512, init_std=0.02, heads=4, rope_base=10000.0),
}
PAPER = {
    **PUBLISHED,
    "gru4rec": GRU4RecConfig(width=512, layers=3, dropout=0.1, max_len=512, init_std=0.02, hidden=1024),
    "hstu": HSTUConfig(
        width=512, layers=4, dropout=0.1, max_len=512, init_std=0.02, heads=8, qk_dim=256, v_dim=256, bias="auto"
    ),
    "trm++": TrmPPConfig(width=512, layers=8, dropout=0.1, max_len=512, init_std=0.02, heads=8, rope_base=10000.0),
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(name: str, preset: str, **overrides: object) -> nn.Module:
    with torch.device("meta"):
        return build_encoder(name, preset, **overrides)


def test_published_and_paper_shapes() -> None:
    for name in ENCODER_PRESETS:
        assert ENCODER_PRESETS[name]["published"] == PUBLISHED[name]
        assert ENCODER_PRESETS[name]["paper"] == PAPER[name]
        assert tuple(ENCODER_PRESETS[name]) == PRESET_NAMES
    assert PUBLISHED["trm++"].inner_width == 1536


def test_every_field_explains_itself_and_dropout_is_the_papers() -> None:
    for presets in ENCODER_PRESETS.values():
        for config in presets.values():
            assert all(item.metadata["setting"].help for item in fields(config))
            assert config.dropout == 0.1


@pytest.mark.parametrize("preset, width, layers", [("tiny", 32, (1, 2)), ("demo", 128, (2,)), ("small", 256, (4,))])
def test_smaller_presets(preset: str, width: int, layers: tuple[int, ...]) -> None:
    for name in ENCODER_PRESETS:
        config = ENCODER_PRESETS[name][preset]
        assert config.width == width
        assert config.layers in layers
        assert on_meta(name, preset).width == width


def test_demo_encoders_are_comparable() -> None:
    counts = [parameters(on_meta(name, "demo")) for name in ENCODER_PRESETS]
    assert 300_000 < min(counts) and max(counts) < 450_000, counts


@pytest.mark.parametrize(
    "name, preset, millions",
    # The first four are the published modules' counts; 27.3 M are the paper's 25 M (12 l d^2) plus the rounding up of
    # the SwiGLU width.
    [
        ("hstu", "published", 21.0),
        ("sasrec", "published", 16.0),
        ("trm++", "published", 13.6),
        ("gru4rec", "published", 11.5),
        ("gru4rec", "paper", 17.8),
        ("trm++", "paper", 27.3),
        ("mamba2", "published", 6.9),
        ("mamba4rec", "published", 15.4),
    ],
)
def test_parameter_counts(name: str, preset: str, millions: float) -> None:
    assert round(parameters(on_meta(name, preset)) / 1e6, 1) == millions


def test_hstu_projections_are_the_published_ones() -> None:
    encoder = on_meta("hstu", "paper")
    block = encoder.blocks[0]
    assert block.uvqk.weight.shape == (8192, 512) and block.uvqk.bias is None
    assert block.out.weight.shape == (512, 2048) and block.out.bias.shape == (512,)
    assert block.position_bias.shape == (1023,) and block.time_bias.shape == (129,)


@pytest.mark.parametrize(
    "layers, width, heads, inner",
    [(4, 256, 4, 768), (4, 512, 8, 1536), (8, 768, 12, 2048), (24, 1024, 8, 2816), (24, 2048, 16, 5632)],
)
def test_trmpp_at_table_5_sizes(layers: int, width: int, heads: int, inner: int) -> None:
    encoder = on_meta("trm++", "paper", layers=layers, width=width, heads=heads)
    assert encoder.layers[0].up.weight.shape == (inner, width)
    assert parameters(encoder) == layers * (4 * width**2 + 3 * inner * width + 2 * width)


def assert_gaussian(values: torch.Tensor, std: float, what: str) -> None:
    z = values.detach() / std
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05, what
    assert 2.7 < z.pow(4).mean() < 3.3, what  # the kurtosis of a Gaussian is 3, of a uniform law 1.8


def initial_std(name: str, key: str) -> float:
    if "dt_proj" in key:
        return 8**-0.5  # rank 128 / 16
    if name == "trm++" and (".out." in key or ".down." in key):
        return 0.03 / 2  # divided by sqrt(2 layers)
    return 0.02 if "position_embedding" in key else 0.03


@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_gaussian_initialisation(name: str) -> None:
    torch.manual_seed(0)
    matrices = 0
    for key, p in build_encoder(name, "demo", init_std=0.03).named_parameters():
        if p.ndim == 2 and "A_log" not in key and "conv" not in key:
            matrices += 1
            assert_gaussian(p, initial_std(name, key), key)
        elif "norm" in key and key.endswith("weight"):
            assert (p == 1).all(), key
    assert matrices >= 4


def test_gaussian_initialisation_around_the_encoder(catalogue: Catalogue) -> None:
    torch.manual_seed(0)
    config = UserEncoderConfig("trm++", "tiny", {"width": 256}, item_dim=512, side_dim=512)
    user = UserEncoder.build(config, catalogue)
    assert_gaussian(user.item_weight, 0.02, "item table")
    assert_gaussian(user.tower.token_table.weight, 0.02, "token table")
    assert_gaussian(user.tower.project.weight, (8 * 512) ** -0.5, "project")
    assert_gaussian(user.score_head.weight, 256**-0.5, "score head")


@pytest.mark.parametrize("name", ["mamba4rec", "mamba2"])
def test_initial_step_sizes(name: str) -> None:
    for key, p in build_encoder(name, "small").named_parameters():
        if "dt_bias" in key:
            step = torch.nn.functional.softplus(p.detach())
            assert 0.001 <= step.min() * 1.01 and step.max() <= 0.1 * 1.01


@pytest.mark.parametrize(
    "name, overrides, field",
    [
        ("hstu", {"width": 0}, "width"),
        ("hstu", {"layers": 2.5}, "layers"),
        ("hstu", {"bias": "time"}, "bias"),
        ("gru4rec", {"dropout": 1.0}, "dropout"),
        ("gru4rec", {"init_std": -1}, "init_std"),
        ("sasrec", {"heads": 3}, "heads"),
        ("trm++", {"heads": 128}, "heads"),
        ("trm++", {"inner": 0}, "inner"),
        ("mamba2", {"head_dim": 7}, "head_dim"),
        ("mamba4rec", {"dt_rank": True}, "dt_rank"),
    ],
)
def test_values_out_of_range_are_named(name: str, overrides: dict, field: str) -> None:
    with pytest.raises(InputError, match=rf"Config\.{field} (is|must be of type int)"):
        build_encoder(name, "demo", **overrides)


def test_user_encoder_config_round_trips() -> None:
    config = UserEncoderConfig("trm++", "small", {"layers": 3}, "without-text", side_dim=16)
    assert config.item_dim == 128
    assert from_dict(UserEncoderConfig, to_dict(config)) == config
    assert UserEncoderConfig("hstu", "demo").item_dim == 64 and UserEncoderConfig("hstu", "demo").side_dim == 32
    assert (UserEncoderConfig(preset="published").item_dim, UserEncoderConfig(preset="published").side_dim) == (128, 64)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"encoders": "hstu"}, r"Unknown setting 'pretrain.encoder.encoders' \(did you mean 'encoder'\?\)"),
        ({"preset": "huge"}, "'huge'"),
        ({"item_dim": 0}, "item_dim"),
    ],
)
def test_user_encoder_config_errors(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        UserEncoderConfig(**values)
