"""Each encoder against a padded formulation, written here from the equations of its article."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders import build_encoder

LENGTHS = [5, 0, 1, 17, 2, 33]


def pad(x: Tensor, offsets: Tensor) -> Tensor:
    """(T, ...) -> (B, L, ...), zeros behind each sequence."""
    parts = [x[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    return nn.utils.rnn.pad_sequence(parts, batch_first=True)


def unpad(x: Tensor, offsets: Tensor) -> Tensor:
    return torch.cat([row[:n] for row, n in zip(x, offsets.diff().tolist(), strict=True)])


def heads(x: Tensor, n: int) -> Tensor:
    """(B, L, n * D) -> (B, n, L, D)."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def normalise(x: Tensor, eps: float) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps)


def rms(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v


def padded_gru4rec(m: nn.Module, x: Tensor, times: Tensor | None) -> Tensor:
    for layer in m.layers:
        h, steps = x.new_zeros(x.shape[0], m.config.hidden), []
        for t in range(x.shape[1]):
            xr, xz, xn = (x[:, t] @ layer.weight_ih.T).chunk(3, -1)
            hr, hz, hn = (h @ layer.weight_hh.T).chunk(3, -1)
            r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            h = (1 - z) * torch.tanh(xn + r * hn) + z * h
            steps.append(h)
        x = torch.stack(steps, 1)
    x = x @ m.dense.weight.T + m.dense.bias
    return normalise(x, 1e-5) * m.norm.weight + m.norm.bias


def padded_sasrec(m: nn.Module, x: Tensor, times: Tensor | None) -> Tensor:
    x = x + m.position_embedding.weight[: x.shape[1]]
    for layer in m.layers:
        q, k, v = (heads(p, m.config.heads) for p in (x @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, -1))
        attended = softmax_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + attended @ layer.out.weight.T + layer.out.bias
        x = normalise(x, 1e-5) * layer.norm1.weight + layer.norm1.bias
        inner = torch.relu(x @ layer.up.weight.T + layer.up.bias)
        x = x + inner @ layer.down.weight.T + layer.down.bias
        x = normalise(x, 1e-5) * layer.norm2.weight + layer.norm2.bias
    return normalise(x, 1e-5) * m.norm.weight + m.norm.bias


def rotate(x: Tensor, base: float) -> Tensor:
    """RoFormer's equation 34 as complex numbers: component i is paired with i + D / 2."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * frequency
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


def padded_trmpp(m: nn.Module, x: Tensor, times: Tensor | None) -> Tensor:
    for layer in m.layers:
        q, k, v = (heads(p, m.config.heads) for p in (rms(x, layer.norm1.weight) @ layer.qkv.weight.T).chunk(3, -1))
        q, k = rotate(q, m.config.rope_base), rotate(k, m.config.rope_base)
        x = x + softmax_attention(q, k, v).transpose(1, 2).flatten(2) @ layer.out.weight.T
        h = rms(x, layer.norm2.weight)
        x = x + (F.silu(h @ layer.gate.weight.T) * (h @ layer.up.weight.T)) @ layer.down.weight.T
    return x


def padded_hstu(m: nn.Module, x: Tensor, times: Tensor | None) -> Tensor:
    c, length = m.config, x.shape[1]
    index = torch.arange(length)
    for block in m.blocks:
        v_width, qk_width = c.heads * c.v_dim, c.heads * c.qk_dim
        mixed = F.silu(normalise(x, 1e-6) @ block.uvqk.weight.T)
        u, v, q, k = mixed.split([v_width, v_width, qk_width, qk_width], -1)
        q, k, v = heads(q, c.heads), heads(k, c.heads), heads(v, c.heads)
        scores = q @ k.transpose(-1, -2)
        if times is not None:
            gap = (times[:, :, None] - times[:, None, :]).abs().clamp(min=1).double()
            bucket = (gap.log() / 0.301).long().clamp(0, c.time_buckets)
            distance = index[:, None] - index[None, :]
            bias = block.position_bias[distance + c.max_len - 1] + block.time_bias[bucket]
            scores = scores + bias[:, None]
        weights = (F.silu(scores) / c.max_len).tril()
        attended = (weights @ v).transpose(1, 2).flatten(2)
        x = x + (u * normalise(attended, 1e-6)) @ block.out.weight.T + block.out.bias
    return x


def causal_convolution(x: Tensor, conv: nn.Module) -> Tensor:
    taps = conv.weight.shape[1]
    x = F.pad(x, (0, 0, taps - 1, 0))
    length = x.shape[1] - taps + 1
    return F.silu(sum(x[:, i : i + length] * conv.weight[:, i] for i in range(taps)) + conv.bias)


def padded_mamba4rec(m: nn.Module, x: Tensor, times: Tensor | None) -> Tensor:
    x = normalise(x, 1e-5) * m.norm.weight + m.norm.bias
    for layer in m.layers:
        s6 = layer.mixer
        u, z = (x @ s6.in_proj.weight.T).chunk(2, -1)
        u = causal_convolution(u, s6.conv)
        dt, b, c = (u @ s6.x_proj.weight.T).split([s6.rank, s6.state, s6.state], -1)
        dt = torch.log1p(torch.exp(dt @ s6.dt_proj.weight.T + s6.dt_bias))
        a, state, steps = -torch.exp(s6.A_log), 0.0, []
        for t in range(x.shape[1]):
            state = torch.exp(dt[:, t, :, None] * a) * state + (dt[:, t] * u[:, t])[..., None] * b[:, t, None]
            steps.append((state * c[:, t, None]).sum(-1))
        y = (torch.stack(steps, 1) + s6.D * u) * F.silu(z)
        x = x + y @ s6.out_proj.weight.T
        x = normalise(x, 1e-5) * layer.norm1.weight + layer.norm1.bias
        x = x + F.gelu(x @ layer.up.weight.T + layer.up.bias) @ layer.down.weight.T + layer.down.bias
        x = normalise(x, 1e-5) * layer.norm2.weight + layer.norm2.bias
    return x


def padded_mamba2(m: nn.Module, x: Tensor, times: Tensor | None) -> Tensor:
    for norm, ssd in zip(m.norms, m.mixers, strict=True):
        projected = rms(x, norm.weight) @ ssd.in_proj.weight.T
        z, mixed, dt = projected.split([ssd.inner, ssd.inner + 2 * ssd.state, ssd.heads], -1)
        u, b, c = causal_convolution(mixed, ssd.conv).split([ssd.inner, ssd.state, ssd.state], -1)
        u = u.unflatten(-1, (ssd.heads, ssd.head_dim))
        dt = torch.log1p(torch.exp(dt + ssd.dt_bias))
        decay, state, steps = torch.exp(-dt * torch.exp(ssd.A_log)), 0.0, []
        for t in range(x.shape[1]):
            step = (dt[:, t, :, None] * u[:, t])[..., None] * b[:, t, None, None]
            state = decay[:, t, :, None, None] * state + step
            steps.append((state * c[:, t, None, None]).sum(-1))
        y = (torch.stack(steps, 1) + ssd.D[:, None] * u).flatten(2) * F.silu(z)
        x = x + rms(y, ssd.norm.weight) @ ssd.out_proj.weight.T
    return x


PADDED: dict[str, Callable[[nn.Module, Tensor, Tensor | None], Tensor]] = {
    "gru4rec": padded_gru4rec,
    "sasrec": padded_sasrec,
    "mamba4rec": padded_mamba4rec,
    "mamba2": padded_mamba2,
    "hstu": padded_hstu,
    "trm++": padded_trmpp,
}


def lively(name: str, **overrides: object) -> nn.Module:
    """A tiny two-layer encoder whose parameters are all far from 0 and 1, so that each shows in the output."""
    torch.manual_seed(1)
    encoder = build_encoder(name, "tiny", layers=2, init_std=0.15, **overrides).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return encoder


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm().clamp(min=1e-12))


def run_both(name: str, packed: Callable, *, timed: bool, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Relative error of the output and of every gradient against the padded formulation in float64."""
    encoder = lively(name)
    batch = packed(LENGTHS)
    exact = copy.deepcopy(encoder).double()
    encoder.to(dtype)
    x = batch.x.to(dtype, copy=True).requires_grad_()
    times = batch.timestamps if timed else None
    out = encoder(x, batch.offsets, times)
    assert out.dtype == dtype
    x64 = batch.x.double().requires_grad_()
    padded = PADDED[name](exact, pad(x64, batch.offsets), pad(times, batch.offsets) if timed else None)
    want = unpad(padded, batch.offsets)
    cotangent = torch.randn(want.shape, generator=torch.Generator().manual_seed(5))
    out.backward(cotangent.to(dtype))
    want.backward(cotangent.double())
    errors = {"output": relative(out.detach(), want.detach()), "x": relative(x.grad, x64.grad)}
    for (key, got), reference in zip(encoder.named_parameters(), exact.parameters(), strict=True):
        if reference.grad is None:
            assert got.grad is None or not got.grad.any(), key
        else:
            errors[key] = relative(got.grad, reference.grad)
    return errors


@pytest.mark.parametrize("name", PADDED)
def test_equals_the_padded_formulation(name: str, packed: Callable) -> None:
    for timed in (False, True):
        worst = max(run_both(name, packed, timed=timed).items(), key=lambda item: item[1])
        assert worst[1] <= 1e-4, worst


@pytest.mark.parametrize("name", PADDED)
def test_bfloat16_stays_close(name: str, packed: Callable) -> None:
    """8 bits of mantissa round by 2^-9 = 2e-3 an operation: under 1 % in the output, a few % in gradients."""
    errors = run_both(name, packed, timed=True, dtype=torch.bfloat16)
    assert errors["output"] <= 2e-2
    worst = max(errors.items(), key=lambda item: item[1])
    assert worst[1] <= 1e-1, worst


@pytest.mark.parametrize("name", PADDED)
def test_autocast_stays_close(name: str, packed: Callable) -> None:
    encoder, batch = lively(name), packed(LENGTHS)
    want = encoder(batch.x, batch.offsets, batch.timestamps)
    with torch.autocast("cpu", torch.bfloat16):
        got = encoder(batch.x, batch.offsets, batch.timestamps)
    got.sum().backward()
    assert got.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert relative(got.detach(), want.detach().double()) <= 2e-2
