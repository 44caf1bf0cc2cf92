"""Rows of the attention operators, bf16, over lengths up to 512, 2,048 and 8,192.

Work counts the pairs (i, j <= i) alone, and in the backward pass the scores made again (bench/work.py). Short sequences
are bound by memory: at 116 keys a token (Zipf to 512) an H100 moves q, k, v and the result for three times as long as
it multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.gpu.lengths import draw, offsets_of
from bench.gpu.problem import Inputs, Problem
from bench.row import Row, Setting
from uqabench.kernels import causal_attention, hstu_attention

TOKENS = 65_536
PADDED_LIMIT = 2_048
"""Longest sequence whose whole score matrix a baseline may hold: beyond, it takes tens of gigabytes."""


def _lengths(kind: str, longest: int, setting: Setting) -> list[int]:
    return draw(kind, 12, 40) if setting.is_small else draw(kind, longest, TOKENS)


def _inputs(kind: str, longest: int, heads: int, width: int, biased: bool, setting: Setting, seed: int) -> Inputs:
    """q, k, v as slices of one projection, as the encoders pass them."""
    heads, width = (2, 16) if setting.is_small else (heads, width)
    lengths = _lengths(kind, longest, setting)
    tokens, longest = sum(lengths), max(lengths)
    torch.manual_seed(seed)
    joint = torch.randn(tokens, 3, heads, width, device=setting.device).bfloat16()
    inputs: Inputs = dict(zip("qkv", joint.unbind(1), strict=True))
    inputs |= {"offsets": offsets_of(lengths, setting.device), "longest": longest}
    if biased:
        inputs["position_bias"] = torch.randn(2 * longest - 1, device=setting.device)
        inputs["time_bias"] = torch.randn(129, device=setting.device)
        inputs["timestamps"] = torch.randint(0, 10**7, (tokens,), device=setting.device).sort().values
    return inputs


def _hstu(inputs: Inputs) -> Tensor:
    extra = {name: inputs[name] for name in ("position_bias", "time_bias", "timestamps") if name in inputs}
    q, k, v, offsets = (inputs[name] for name in ("q", "k", "v", "offsets"))
    extra = {n: x.to(q.dtype) if n.endswith("bias") else x for n, x in extra.items()}
    return hstu_attention(q, k, v, offsets, max_len=inputs["longest"], **extra)


def _causal(inputs: Inputs) -> Tensor:
    return causal_attention(inputs["q"], inputs["k"], inputs["v"], inputs["offsets"])


def _padded(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Where each token lies in a padded batch of B * L places, made once, and L."""
    if "places" not in inputs:
        offsets, longest = inputs["offsets"], inputs["longest"]
        row = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())
        inputs["places"] = row * longest + torch.arange(int(offsets[-1]), device=offsets.device) - offsets[row]
    return inputs["places"], inputs["longest"]


def _heads_first(x: Tensor, places: Tensor, sequences: int, longest: int) -> Tensor:
    padded = x.new_zeros(sequences * longest, *x.shape[1:]).index_copy(0, places, x)
    return padded.unflatten(0, (sequences, longest)).transpose(1, 2)


def _by_matrix(inputs: Inputs, function) -> Tensor:
    """Attention on padded (B, H, L, D), packed again."""
    places, longest = _padded(inputs)
    sequences = len(inputs["offsets"]) - 1
    q, k, v = (_heads_first(inputs[name], places, sequences, longest) for name in "qkv")
    return function(q, k, v).transpose(1, 2).flatten(0, 1).index_select(0, places)


def _silu_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    longest = q.shape[2]
    mask = torch.ones(longest, longest, dtype=q.dtype, device=q.device).tril()
    return (F.silu(q @ k.transpose(-1, -2)) / longest * mask) @ v


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _flash(inputs: Inputs) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    offsets = inputs["offsets"].int()
    longest = inputs["longest"]
    q, k, v = (inputs[name] for name in "qkv")
    return flash_attn_varlen_func(q, k, v, offsets, offsets, longest, longest, causal=True)


def _work(kind: str, longest: int, heads: int, width: int, setting: Setting) -> work.Passes:
    """Scores that a backward pass makes again are counted with it."""
    heads, width = (2, 16) if setting.is_small else (heads, width)
    least = work.attention(_lengths(kind, longest, setting), heads, width)
    return work.Passes(least.forward, least.backward + least.again)


def _problem(operator: str, kind: str, longest: int, heads: int, width: int, biased: bool = False) -> Problem:
    is_hstu = operator == "hstu_attention"
    matrix = _silu_attention if is_hstu else _sdpa
    baselines = {}
    if not biased and (not is_hstu or longest <= PADDED_LIMIT):
        baselines["torch, padded" if is_hstu else "SDPA, padded"] = partial(_by_matrix, function=matrix)
    if not is_hstu and find_spec("flash_attn") is not None:
        baselines["flash-attn"] = _flash
    is_first = is_hstu and longest == 512 and kind == "zipf" and not biased
    size = f"d={width}, {kind} to {longest}{', bias' if biased else ''}"
    return Problem(
        operator=operator,
        size=size,
        group="attention",
        unit="tensor",
        inputs=partial(_inputs, kind, longest, heads, width, biased),
        call=_hstu if is_hstu else _causal,
        leaves=("q", "k", "v", *(("position_bias", "time_bias") if biased else ())),
        work=partial(_work, kind, longest, heads, width),
        tokens=lambda setting: sum(_lengths(kind, longest, setting)),
        baselines=baselines,
        compiled=partial(_by_matrix, function=matrix) if is_first else None,
    )


def rows() -> Iterator[Row]:
    """Published heads: HSTU 8 of 256, Trm++ 4 of 128, SASRec 8 of 64."""
    for width in (128, 256):
        for longest in (512, 2_048, 8_192):
            for kind in ("zipf", "uniform"):
                yield from _problem("hstu_attention", kind, longest, 8, width).rows()
    yield from _problem("hstu_attention", "uniform", 512, 8, 256, biased=True).rows()
    for longest in (512, 2_048, 8_192):
        yield from _problem("causal_attention", "zipf", longest, 4, 128).rows()
        for heads, width in ((4, 128), (8, 64)):
            yield from _problem("causal_attention", "uniform", longest, heads, width).rows()
