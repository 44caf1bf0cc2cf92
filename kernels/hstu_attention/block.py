"""HSTU's block from its projection to its gate as one operator on a GPU: linear_silu, hstu_attention and norm_gate.

Forward it runs their kernels one after the other. Backward the gradients of U, V, Q and K pass SiLU on their way out of
the kernels that make them and are written side by side into one (T, 2 (Dv + Dqk) H) array, which the two products of
the projection's gradients read. Apart, the three operators write them, concatenate them and pass over them once more:
12 more bytes a number in bf16, of which this reads 2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from ..backend import choose
from ..checks import check_positive, check_rows, check_same, check_tensor
from ..results import empty_statistics, uninitialised
from .arguments import check_longest, check_sequences
from .settings import Settings

PARTS = ("linear_silu", "hstu_attention", "norm_gate")
"""The operators that the block is made of."""


def runs_as_one(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the block's three operators would all run by Triton on that device and dtype."""
    return dtype != torch.float16 and all(choose(name, device.type, dtype) == "triton" for name in PARTS)


def hstu_block(
    x: Tensor,
    weight: Tensor,
    offsets: Tensor,
    *,
    heads: int,
    qk_dim: int,
    v_dim: int,
    max_len: int,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    timestamps: Tensor | None = None,
) -> Tensor:
    """`norm_gate(hstu_attention(q, k, v), u)` with `u, v, q, k = split(linear_silu(x, weight))`, on a GPU by Triton.

    Args:
        x: (T, d), float32 or bfloat16.
        weight: (2 heads (v_dim + qk_dim), d), the dtype of x: U, V, Q and K, by heads.
        offsets, max_len, position_bias, time_bias, timestamps: as in `hstu_attention`, whose scale is 1.
        eps, dropout_p, seed: as in `norm_gate`.

    Returns:
        (T, heads * v_dim), the dtype of x; no second derivatives.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
    """
    check_rows(x, "x")
    check_tensor(weight, "weight", (2 * heads * (v_dim + qk_dim), x.shape[-1]))
    check_same(x, "x", weight=weight)
    check_positive(max_len, "max_len", integer=True)
    check_sequences(x, "x", offsets, max_len, position_bias, time_bias, timestamps)
    check_longest(offsets, max_len)
    if dropout_p > 0:
        check_tensor(seed, "seed", (), (torch.int64,))
    tensors = (x.contiguous(), weight, offsets, position_bias, time_bias, timestamps, seed)
    return _forward(*tensors, heads, qk_dim, v_dim, max_len, float(eps), float(dropout_p))[0]


def _parts(mixed: Tensor, heads: int, qk_dim: int, v_dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U (T, heads * v_dim), and Q, K and V by heads: views."""
    u, v, q, k = mixed.split([heads * v_dim] * 2 + [heads * qk_dim] * 2, dim=1)
    q, k = (part.unflatten(1, (heads, qk_dim)) for part in (q, k))
    return u, q, k, v.unflatten(1, (heads, v_dim))


def _settings(
    offsets: Tensor, position_bias: Tensor | None, time_bias: Tensor | None, timestamps: Tensor | None, max_len: int
) -> Settings:
    return Settings(offsets, max_len, 1.0, position_bias, time_bias, timestamps)


def _empty(x: Tensor, weight: Tensor, heads: int, v_dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gated output, SiLU's results and inputs, the attention's output, and the norm's statistics."""
    mixed = x.new_empty(len(x), len(weight))
    attended = x.new_empty(len(x), heads, v_dim)
    rows = attended.flatten(1)
    return uninitialised(rows), mixed, torch.empty_like(mixed), attended, empty_statistics(rows, 2)


@torch.library.custom_op("uqabench::hstu_block", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    offsets: Tensor,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    seed: Tensor | None,
    heads: int,
    qk_dim: int,
    v_dim: int,
    max_len: int,
    eps: float,
    dropout_p: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`dropout(U * LayerNorm(attention(Q, K, V)))` (T, heads * v_dim) with U, V, Q, K = split(SiLU(x weight^T)), and
    what the backward pass needs.

    x (T, d), contiguous; weight (2 heads (v_dim + qk_dim), d); the others as hstu_attention and norm_gate have them,
    and checked by the caller.
    """
    from ..triton_norms import norm_forward
    from . import triton_forward

    gated, mixed, inputs, _, statistics = _empty(x, weight, heads, v_dim)
    if x.dtype == torch.float32:
        inputs = linear(x, weight)
        mixed = silu(inputs)
    else:
        from ..linear_silu import triton_forward as projection

        projection.forward(mixed, inputs, x, weight, None)
    u, q, k, v = _parts(mixed, heads, qk_dim, v_dim)
    settings = _settings(offsets, position_bias, time_bias, timestamps, max_len)
    attended = triton_forward.forward(q, k, v, settings)
    norm_forward(gated, None, statistics, attended.flatten(1), None, None, None, u, eps, dropout_p, seed)
    return gated, mixed, inputs, attended, statistics


@_forward.register_fake
def _(x, weight, offsets, position_bias, time_bias, timestamps, seed, heads, qk_dim, v_dim, *others):
    return _empty(x, weight, heads, v_dim)


@torch.library.custom_op("uqabench::hstu_block_backward", mutates_args=())
def _backward(
    grad: Tensor,
    mixed: Tensor,
    inputs: Tensor,
    attended: Tensor,
    statistics: Tensor,
    offsets: Tensor,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    seed: Tensor | None,
    heads: int,
    qk_dim: int,
    v_dim: int,
    max_len: int,
    dropout_p: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of SiLU's inputs (T, 2 heads (v_dim + qk_dim)) and of the two tables, empty where there is none."""
    from ..triton_norms import norm_backward
    from . import triton_backward, triton_tables

    gradient, d_attended = torch.empty_like(inputs), torch.empty_like(attended)
    u, q, k, v = _parts(mixed, heads, qk_dim, v_dim)
    (du, *d_heads), (zu, *z_heads) = (_parts(each, heads, qk_dim, v_dim) for each in (gradient, inputs))
    norm_backward(
        d_attended.flatten(1), du, grad, None, attended.flatten(1), statistics, None, u,
        dropout_p=dropout_p, seed=seed, gate_input=zu,
    )  # fmt: skip
    settings = _settings(offsets, position_bias, time_bias, timestamps, max_len)
    triton_backward.backward(d_attended, q, k, v, settings, tuple(d_heads), tuple(z_heads))
    return gradient, *triton_tables.table_gradients(d_attended, q, k, v, settings)


@_backward.register_fake
def _(grad, mixed, inputs, attended, statistics, offsets, position_bias, time_bias, *others):
    tables = (inputs.new_empty(0 if table is None else len(table)) for table in (position_bias, time_bias))
    return torch.empty_like(inputs), *tables


def _setup_context(ctx, inputs, output) -> None:
    x, weight, offsets, position_bias, time_bias, timestamps, seed, *sizes, _, dropout_p = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.sizes = (*sizes, dropout_p)
    ctx.save_for_backward(x, weight, *output[1:], offsets, position_bias, time_bias, timestamps, seed)


def _differentiate(ctx, grad, *_):
    if grad is None:
        return (None,) * 13
    x, weight, *saved = ctx.saved_tensors
    gradient, position, time = _backward(grad.contiguous(), *saved, *ctx.sizes)
    dx = gradient @ weight if ctx.needs_input_grad[0] else None
    dweight = gradient.T @ x if ctx.needs_input_grad[1] else None
    tables = (None if table is None else d for table, d in zip(saved[5:7], (position, time), strict=True))
    return dx, dweight, None, *tables, *(None,) * 8


_forward.register_autograd(_differentiate, setup_context=_setup_context)
