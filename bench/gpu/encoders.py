"""Rows of the encoders' training step: forward and backward under bf16 autocast, and fused AdamW, at published size.

Work is the model's: 6 FLOPs a parameter of a matrix and token, and three times the forward products of attention or
scan over pairs of valid tokens (bench/rows/encoders.py has the formulas). Baselines are the published modules, padded,
with the same parameters under the same autocast; Mamba's are transformers' blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from bench.baselines import build_baseline
from bench.baselines.padding import pad
from bench.gpu.lengths import draw, offsets_of
from bench.row import Call, Floor, Made, Row, Setting
from bench.rows.encoders import WORK, encoder_floor
from uqabench.encoders import build_encoder
from uqabench.kernels import backend

TOKENS = {"mamba4rec": 32_768}
"""A step's tokens where they are not 65,536."""
SETS = 3
CONVOLVED = ("mamba4rec", "mamba2")
OPERATOR = {"hstu": "hstu_attention", "trm++": "causal_attention", "sasrec": "causal_attention", "gru4rec": "gru"}
OPERATOR |= {"mamba4rec": "selective_scan", "mamba2": "ssd_scan"}


def _lengths(name: str, kind: str, setting: Setting, seed: int = 0) -> list[int]:
    return draw(kind, 9, 30, seed) if setting.is_small else draw(kind, 512, TOKENS.get(name, 65_536), seed)


def _build(name: str, setting: Setting) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(name, "tiny" if setting.is_small else "published", dropout=0.0).to(setting.device).train()


@cache
def _floor(name: str, kind: str, setting: Setting) -> Floor:
    with torch.device("meta"):
        encoder = build_encoder(name, "tiny" if setting.is_small else "published", dropout=0.0)
    return encoder_floor(encoder, _lengths(name, kind, setting), WORK[name])


def _step(
    module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, where: Tensor, cotangent: Tensor, device: str
) -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16):
        states = module(x, where)
    states.backward(cotangent.to(states.dtype))
    optimizer.step()


def _make(name: str, kind: str, setting: Setting) -> Made:
    encoder = _build(name, setting)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, fused=True)
    batches = []
    for seed in range(SETS):
        offsets = offsets_of(_lengths(name, kind, setting, seed), setting.device)
        x, cotangent = torch.randn(2, int(offsets[-1]), encoder.width, device=setting.device)
        batches.append((x, offsets, cotangent / len(x)))

    def packed(module: nn.Module) -> list[Call]:
        return [partial(_step, module, optimizer, x, o, c, setting.device) for x, o, c in batches]

    def padded(wrap: Callable[[nn.Module], nn.Module]) -> Sequence[Call]:
        module = wrap(build_baseline(name, encoder).to(setting.device).train())
        return [
            partial(_step, module, optimizer, pad(x, o), o.diff(), pad(c, o), setting.device)
            for x, o, c in batches[: 1 if name in CONVOLVED else SETS]
        ]

    baselines: dict[str, Callable[[], Sequence[Call]]] = {"published module, padded": partial(padded, lambda m: m)}
    if name not in CONVOLVED:  # torch.compile would unroll transformers' loop over tokens
        baselines["published module, torch.compile"] = partial(padded, torch.compile)
    chosen = backend.choose(OPERATOR[name], setting.device, torch.bfloat16)
    return Made(ours=packed(encoder), baselines=baselines, check=partial(_error, name, setting), backend=chosen)


def _error(name: str, setting: Setting) -> float:
    """Largest difference between the states under autocast and in fp32, relative to the largest state."""
    encoder = _build(name, setting)
    offsets = offsets_of(
        draw("uniform", 9 if setting.is_small else 512, 30 if setting.is_small else 4_096), setting.device
    )
    x = torch.randn(int(offsets[-1]), encoder.width, device=setting.device)
    with torch.no_grad():
        with torch.autocast(setting.device, torch.bfloat16):
            found = encoder(x, offsets).float()
        expected = encoder(x, offsets)
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


def rows() -> Iterator[Row]:
    for name in WORK:
        for kind in ("uniform", "zipf") if name in ("hstu", "trm++") else ("uniform",):
            yield Row(
                name=f"{name} training step, {kind} to 512",
                group="encoders",
                unit="tensor",
                floor=partial(_floor, name, kind),
                make=partial(_make, name, kind),
                tokens=partial(lambda name, kind, setting: sum(_lengths(name, kind, setting)), name, kind),
                bound=0.1,
            )
