"""Rows of the encoders: forward and backward of the published size, against the padded module of the same parameters.

Floors count valid tokens only. FLOPs: 2 a parameter of a matrix and token, forward, and twice that backward, plus the
products of attention or scan. Bytes: parameters read in either direction and their gradients written once, and what
backward needs of each token written and read once. A GRU's floor leaves out that its recurrent matrix is read again
at every step: it may stay in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import work
from bench.baselines import build_baseline
from bench.baselines.padding import pad
from bench.rows.row import Floor, Measure, Row, random
from uqabench.encoders import build_encoder
from uqabench.kernels import selective_scan

LENGTHS = (155, 187, 214, 246, 279, 328, 375, 409)
"""2,193 tokens in 8 sequences."""
SMALL_LENGTHS = (3, 9, 16)
PUBLISHED_DROPOUT = 0.1
"""Where both drop. torch's layer, SASRec's baseline, drops attention probabilities too, which ours never does."""

Work = Callable[[nn.Module, list[int]], tuple[float, float, str]]
"""(encoder, lengths) -> forward FLOPs beside the matrices', floats a token kept for backward, both in words."""


def _hstu(encoder: nn.Module, lengths: list[int]) -> tuple[float, float, str]:
    c = encoder.config
    attention = c.layers * work.attention(lengths, c.heads, c.qk_dim, c.v_dim).forward.flops
    kept = c.layers * (c.width + c.heads * (2 * c.qk_dim + 2 * c.v_dim) + c.heads * c.v_dim)
    return attention, kept, "2 H (Dqk + Dv) a pair of tokens and layer"


def _trmpp(encoder: nn.Module, lengths: list[int]) -> tuple[float, float, str]:
    c = encoder.config
    kept = c.layers * (2 * c.width + 3 * c.width + c.width + 2 * c.inner_width)
    attention = c.layers * work.attention(lengths, 1, c.width).forward.flops
    return attention, kept, "4 width a pair of tokens and layer"


def _sasrec(encoder: nn.Module, lengths: list[int]) -> tuple[float, float, str]:
    c = encoder.config
    kept = c.layers * (2 * c.width + 3 * c.width + c.width + c.inner)
    attention = c.layers * work.attention(lengths, 1, c.width).forward.flops
    return attention, kept, "4 width a pair of tokens and layer"


def _gru4rec(encoder: nn.Module, lengths: list[int]) -> tuple[float, float, str]:
    c = encoder.config
    return 0.0, c.layers * 5 * c.hidden + c.width, "nothing beside the matrices"


def _mamba4rec(encoder: nn.Module, lengths: list[int]) -> tuple[float, float, str]:
    c = encoder.config
    inner = c.expand * c.width
    scan = work.selective_scan(sum(lengths), inner, c.state).both.flops / 3
    scan += work.causal_conv1d(sum(lengths), inner, c.conv).forward.flops
    kept = 4 * inner + encoder.layers[0].mixer.rank + 2 * c.state + 2 * c.width + c.inner
    return c.layers * scan, c.layers * kept, "(52/3 N, exp counted, + 2 taps) a token, channel, layer"


def _mamba2(encoder: nn.Module, lengths: list[int]) -> tuple[float, float, str]:
    c = encoder.config
    inner = c.expand * c.width
    scan = work.ssd_scan(sum(lengths), inner, c.state).forward.flops
    scan += work.causal_conv1d(sum(lengths), inner + 2 * c.state, c.conv).forward.flops
    kept = c.width + 3 * inner + 2 * c.state + inner // c.head_dim
    return c.layers * scan, c.layers * kept, "4 P N a token, head and layer, and 2 taps a channel"


WORK: dict[str, Work] = {
    "hstu": _hstu,
    "trm++": _trmpp,
    "sasrec": _sasrec,
    "gru4rec": _gru4rec,
    "mamba4rec": _mamba4rec,
    "mamba2": _mamba2,
}
"""By the encoder's registered name."""


@dataclass(frozen=True)
class Problem:
    """One encoder's row: its name, the encoder's, lengths in tokens, and whether to time it padded to N as well."""

    row: str
    encoder: str
    lengths: tuple[int, ...]
    work: Work
    is_padded_to_max: bool = False

    @property
    def origin(self) -> str:
        return "transformers' block" if self.row.startswith("mamba") else "published module"


def encoder_floor(encoder: nn.Module, lengths: list[int], beside_matrices: Work) -> Floor:
    """Forward and backward of the stack over `lengths`, gradients to its parameters and its input."""
    tokens = sum(lengths)
    # Position and item tables are gathered, not multiplied.
    tables = {id(m.weight) for m in encoder.modules() if isinstance(m, nn.Embedding)}
    matrices = sum(p.numel() for p in encoder.parameters() if p.dim() > 1 and id(p) not in tables)
    scans = [p for name, p in encoder.named_parameters() if name.endswith(("A_log", "conv.weight")) and p.dim() > 1]
    matrices -= sum(p.numel() for p in scans)
    parameters = sum(p.numel() for p in encoder.parameters())
    beside, kept, words = beside_matrices(encoder, lengths)
    return Floor(
        flops=3 * (2 * tokens * matrices + beside),
        bytes=4 * (3 * parameters + 2 * tokens * kept + 4 * tokens * encoder.width),
        formula=(
            f"FLOPs 3 x (2 x {tokens:,} tokens x {matrices:,} in matrices + {beside:.4g}: {words}); bytes 4 x "
            f"(3 x {parameters:,} parameters + {tokens:,} x (2 x {kept:,} kept for backward + 4 x {encoder.width}))"
        ),
    )


def _train_step(module: nn.Module, x: Tensor, where: Tensor, cotangent: Tensor) -> Callable:
    """Forward and backward with fresh gradients, as a training step has them."""
    x = x.clone().requires_grad_()

    def step() -> None:
        module.zero_grad(set_to_none=True)
        x.grad = None
        module(x, where).backward(cotangent)

    return step


def build(problem: Problem, is_small: bool) -> list[Measure]:
    # Without dropout both compute the same function.
    measures = _padded(problem, is_small, 0.0, problem.row)
    if not problem.is_padded_to_max:
        return measures[:1]
    as_trained = _padded(problem, is_small, PUBLISHED_DROPOUT, f"as trained, dropout {PUBLISHED_DROPOUT}")
    return measures + as_trained


def _padded(problem: Problem, is_small: bool, dropout: float, name: str) -> list[Measure]:
    """Against the baseline padded to the batch's longest sequence, and to the longest of all, N."""
    lengths = list(SMALL_LENGTHS if is_small else problem.lengths)
    torch.manual_seed(0)
    encoder = build_encoder(problem.encoder, "tiny" if is_small else "published", dropout=dropout).train()
    baseline = build_baseline(problem.encoder, encoder).train()
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    x = random(sum(lengths), encoder.width, seed=1)
    cotangent = random(sum(lengths), encoder.width, seed=2)
    ours = _train_step(encoder, x, offsets, cotangent)
    floor = encoder_floor(encoder, lengths, problem.work)

    def measure(name: str, length: int) -> Measure:
        step = _train_step(baseline, pad(x, offsets, length), offsets.diff(), pad(cotangent, offsets, length))
        return Measure(name, ours, floor, f"{problem.origin}, padded to {len(lengths)} x {length}", step)

    return [measure(name, max(lengths)), measure(f"{name}, padded to N", encoder.config.max_len)]


def _mamba1_parts(is_small: bool) -> list[Measure]:
    """The row, and its scan alone: one layer's, against the loop over tokens in plain torch."""
    measures = build(Problem("mamba1", "mamba4rec", (256, 256), _mamba4rec), is_small)
    lengths, width, state = ((3, 9), 16, 4) if is_small else ((256, 256), 1024, 32)
    return [*measures, _scan(list(lengths), width, state)]


def _scan(lengths: list[int], width: int, state: int) -> Measure:
    tokens, batch = sum(lengths), len(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    a = -torch.arange(1.0, state + 1).repeat(width, 1)
    leaves = [random(tokens, n, seed=i) for i, n in enumerate((width, width, state, state, width))]
    u, delta, b, c, z = leaves
    d, bias = torch.ones(width), torch.full((width,), -4.0)
    leaves += [a, d, bias]
    cotangent = random(tokens, width, seed=9)
    for leaf in leaves:
        leaf.requires_grad_()

    def clear() -> None:
        for leaf in leaves:
            leaf.grad = None

    def ours() -> list[Tensor | None]:
        clear()
        selective_scan(u, delta, a, b, c, d, z, bias, offsets, delta_softplus=True).backward(cotangent)
        return [leaf.grad for leaf in leaves]

    def loop() -> list[Tensor | None]:
        clear()
        rows = [pad(part, offsets) for part in (u, nn.functional.softplus(delta + bias), b, c)]
        h, steps = u.new_zeros(batch, width, state), []
        for u_t, dt, b_t, c_t in zip(*(part.unbind(1) for part in rows), strict=True):
            h = torch.exp(dt.unsqueeze(-1) * a) * h + (dt * u_t).unsqueeze(-1) * b_t.unsqueeze(1)
            steps.append((h * c_t.unsqueeze(1)).sum(-1))
        y = torch.cat([row[:n] for row, n in zip(torch.stack(steps, 1), lengths, strict=True)])
        ((y + d * u) * nn.functional.silu(z)).backward(cotangent)
        return [leaf.grad for leaf in leaves]

    floor = Floor.of(
        work.selective_scan(tokens, width, state).both,
        formula=(
            f"FLOPs ({work.SCAN_FORWARD} forward + {work.SCAN_BACKWARD} backward, 15 of either for exp(delta A)) "
            f"x {tokens:,} tokens x {width:,} channels x {state} states; "
            f"bytes 4 x {tokens:,} x (11 x {width:,} + 6 x {state}): u, delta, z, y, B, C and their gradients"
        ),
    )
    return Measure("selective_scan of one layer", ours, floor, "loop over tokens in torch", loop)


def _row(what: str, problem: Problem) -> Row:
    return Row(problem.row, what, lambda is_small: build(problem, is_small))


ROWS = (
    _row("HSTU, published size, fwd+bwd", Problem("hstu", "hstu", LENGTHS, _hstu, is_padded_to_max=True)),
    _row("Trm++, published size, fwd+bwd", Problem("trm++", "trm++", LENGTHS, _trmpp, is_padded_to_max=True)),
    _row("SASRec, published size, fwd+bwd", Problem("sasrec", "sasrec", LENGTHS, _sasrec, is_padded_to_max=True)),
    _row("GRU4Rec, published size, fwd+bwd", Problem("gru4rec", "gru4rec", LENGTHS, _gru4rec)),
    Row("mamba1", "Mamba4Rec on Mamba-1, 2 x 256 tokens, width 512, fwd+bwd", _mamba1_parts),
    _row("Mamba-2, 8 x 512 tokens, width 512, fwd+bwd", Problem("mamba2", "mamba2", (512,) * 8, _mamba2)),
)

TOKENS = dict.fromkeys(("hstu", "trm++", "sasrec", "gru4rec"), sum(LENGTHS)) | {"mamba1": 512, "mamba2": 4_096}
"""Tokens that a call of each row works on, at full size."""
