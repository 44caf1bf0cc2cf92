"""Gated recurrent units over packed sequences (Cho et al. 2014, in cuDNN's and torch's variant)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..checks import check_flag, check_like, check_offsets, check_tensor
from .operator import GRU

__all__ = ["gru"]


def gru(
    x: Tensor,
    weights: Sequence[tuple[Tensor, Tensor, Tensor | None, Tensor | None]],
    offsets: Tensor,
    *,
    h0: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layers of GRUs, each sequence on its own; definition and weights are those of `torch.nn.GRU`.

    `r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)`, `z` alike, `n = tanh(W_in x + b_in + r * (W_hn h + b_hn))`,
    `h' = (1 - z) * n + z * h`. All inputs but `offsets` are differentiable, once.
    The native recurrence gives the same bits on any number of threads; the products over all tokens are torch's.

    Args:
        x: (T, I), floating.
        weights: one `(w_ih, w_hh, b_ih, b_hh)` a layer, of x's dtype: (3H, I) for the first layer and (3H, H) for the
            others, (3H, H), and (3H,) or None twice. Rows are in the order r, z, n; all layers have one H.
        offsets: int64 (B+1,), from 0 to T; sequence b is tokens offsets[b]:offsets[b+1] and may be empty.
        h0: (layers, B, H), x's dtype; zeros if None.
        return_state: also return each layer's state after each sequence's last token (an empty one's h0).

    Returns:
        The last layer's states (T, H); with `return_state` also the final states (layers, B, H). Both in x's dtype.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_flag(return_state, "return_state")
    check_tensor(x, "x", (None, None))
    check_offsets(offsets, x)
    if isinstance(weights, Tensor) or not _is_sequence(weights) or not weights:
        raise TypeError("weights must be a sequence of one (w_ih, w_hh, b_ih, b_hh) a layer, at least one.")
    width, hidden = x.shape[1], None
    for i, layer in enumerate(weights):
        hidden = _check_layer(x, layer, f"weights[{i}]", width, hidden)
        width = hidden
    if h0 is not None:
        check_like(x, "x", h0=(h0, (len(weights), offsets.shape[0] - 1, hidden)))
    return GRU.of(x)(x, weights, offsets, h0, return_state)


def _is_sequence(x: object) -> bool:
    """Whether `x` is a sequence; the first condition takes a tenth of the time of the second."""
    return isinstance(x, (list, tuple)) or isinstance(x, Sequence)


def _check_layer(x: Tensor, layer: object, name: str, width: int, hidden: int | None) -> int:
    """Checks one layer's tensors against its input's width and H (None: as w_hh has it); returns H."""
    if not _is_sequence(layer) or len(layer) != 4:
        raise TypeError(f"{name} must hold w_ih, w_hh, b_ih and b_hh.")
    w_ih, w_hh, b_ih, b_hh = layer
    of_w_ih, of_w_hh, of_b_ih, of_b_hh = f"{name}'s w_ih", f"{name}'s w_hh", f"{name}'s b_ih", f"{name}'s b_hh"
    check_tensor(w_hh, of_w_hh, (None, hidden))
    rows, hidden = w_hh.shape
    if rows != 3 * hidden:
        check_tensor(w_hh, of_w_hh, (3 * hidden, hidden))
    weights = {of_w_ih: (w_ih, (rows, width)), of_w_hh: (w_hh, (rows, hidden))}
    if b_ih is not None:
        weights[of_b_ih] = (b_ih, (rows,))
    if b_hh is not None:
        weights[of_b_hh] = (b_hh, (rows,))
    check_like(x, "x", **weights)
    return hidden
