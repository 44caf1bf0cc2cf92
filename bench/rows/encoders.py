"""Rows of the encoders: forward and backward of the published size, against the padded module of the same parameters.

Floors count valid tokens only. FLOPs: 2 a parameter of a matrix and token, forward, and twice that backward, plus the
products of attention or scan. Bytes: parameters read in either direction and their gradients written once, and what
backward needs of each token written and read once. A GRU's floor leaves out that its recurrent matrix is read again
at every step: it may stay in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bench import work
from bench.baselines import build_baseline
from bench.baselines.padding import pad
from bench.inputs import random
from bench.row import Call, Floor, Made, Row, Setting
from bench.work import Least
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
    """One encoder over sequences: its row's name and that in words, the encoder's name, lengths in tokens, and whether
    it is timed padded to N and with dropout as well."""

    row: str
    what: str
    encoder: str
    lengths: tuple[int, ...] = LENGTHS
    is_padded_to_max: bool = False

    @property
    def origin(self) -> str:
        return "transformers' block" if self.row.startswith("mamba") else "published module"

    def lengths_at(self, setting: Setting) -> list[int]:
        return list(SMALL_LENGTHS if setting.is_small else self.lengths)

    def build(self, setting: Setting, dropout: float = 0.0) -> nn.Module:
        return build_encoder(self.encoder, "tiny" if setting.is_small else "published", dropout=dropout).train()


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
        Least(
            flops=3 * (2 * tokens * matrices + beside),
            bytes=4 * (3 * parameters + 2 * tokens * kept + 4 * tokens * encoder.width),
        ),
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


def _floor(problem: Problem, setting: Setting) -> Floor:
    with torch.device("meta"):
        encoder = problem.build(setting)
    return encoder_floor(encoder, problem.lengths_at(setting), WORK[problem.encoder])


def _make(problem: Problem, dropout: float, is_to_max: bool, setting: Setting) -> Made:
    """Against the baseline padded to the batch's longest sequence or to the longest of all, N."""
    lengths = problem.lengths_at(setting)
    torch.manual_seed(0)
    encoder = problem.build(setting, dropout)
    length = encoder.config.max_len if is_to_max else max(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    x = random(sum(lengths), encoder.width, seed=1)
    cotangent = random(sum(lengths), encoder.width, seed=2)

    def padded() -> list[Call]:
        baseline = build_baseline(problem.encoder, encoder).train()
        return [_train_step(baseline, pad(x, offsets, length), offsets.diff(), pad(cotangent, offsets, length))]

    name = f"{problem.origin}, padded to {len(lengths)} x {length}"
    return Made([_train_step(encoder, x, offsets, cotangent)], {name: padded})


def _rows(problem: Problem) -> Iterator[Row]:
    """Without dropout both compute the same function; details are timed as they are trained, too."""
    as_trained = f"as trained, dropout {PUBLISHED_DROPOUT}"
    for name, dropout in ((problem.row, 0.0), (as_trained, PUBLISHED_DROPOUT)):
        for is_to_max in (False, True):
            is_row = name == problem.row and not is_to_max
            if is_row or problem.is_padded_to_max:
                yield Row(
                    f"{name}, padded to N" if is_to_max else name,
                    problem.row,
                    partial(_floor, problem),
                    partial(_make, problem, dropout, is_to_max),
                    tokens=lambda setting: sum(problem.lengths_at(setting)),
                    what=problem.what if is_row else "",
                )


def _scan_sizes(setting: Setting) -> tuple[list[int], int, int]:
    return ([3, 9], 16, 4) if setting.is_small else ([256, 256], 1024, 32)


def _scan_floor(setting: Setting) -> Floor:
    lengths, width, state = _scan_sizes(setting)
    tokens = sum(lengths)
    return Floor(
        work.selective_scan(tokens, width, state).both,
        f"FLOPs ({work.SCAN_FORWARD} forward + {work.SCAN_BACKWARD} backward, 15 of either for exp(delta A)) "
        f"x {tokens:,} tokens x {width:,} channels x {state} states; "
        f"bytes 4 x {tokens:,} x (11 x {width:,} + 6 x {state}): u, delta, z, y, B, C and their gradients",
    )


def _scan(setting: Setting) -> Made:
    """One layer's, against the loop over tokens in plain torch."""
    lengths, width, state = _scan_sizes(setting)
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

    return Made([ours], {"loop over tokens in torch": lambda: [loop]})


def rows() -> Iterator[Row]:
    for name, words in (("hstu", "HSTU"), ("trm++", "Trm++"), ("sasrec", "SASRec"), ("gru4rec", "GRU4Rec")):
        problem = Problem(name, f"{words}, published size, fwd+bwd", name, is_padded_to_max=name != "gru4rec")
        yield from _rows(problem)
    what = "Mamba4Rec on Mamba-1, 2 x 256 tokens, width 512, fwd+bwd"
    yield from _rows(Problem("mamba1", what, "mamba4rec", (256, 256)))
    yield Row("selective_scan of one layer", "mamba1", _scan_floor, _scan)
    yield from _rows(Problem("mamba2", "Mamba-2, 8 x 512 tokens, width 512, fwd+bwd", "mamba2", (512,) * 8))
