"""What the backends of embedding bags have in common: the means, and the table's gradient, dense or sparse."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import uninitialised
from ..rows import dense_rows
from . import eager, reference


def outputs(table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool) -> Tensor:
    """Means (B, d); `sparse` concerns the gradient only."""
    return table.new_empty(offsets.shape[0] - 1, table.shape[1])


def dense_gradient(grad_y: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    """The gradient of the table (V, d), of which only the shape is read."""
    return uninitialised(table)


def entries(grad_y: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    """What each id adds to the gradient of its row (M, d)."""
    return grad_y.new_empty(ids.shape[0], grad_y.shape[1])


_BACKWARD = Kernel("embedding_bag_mean_backward", __package__, dense_gradient, function="backward")
_ENTRIES = Kernel("embedding_bag_mean_values", __package__, entries, function="values")


def _differentiate(grad_y: Tensor, table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool, backend: str) -> Tensor:
    grad_y = dense_rows(grad_y)
    if not sparse:
        return _BACKWARD(backend, grad_y, table, ids, offsets)
    values = _ENTRIES(backend, grad_y, ids, offsets)
    return torch.sparse_coo_tensor(ids[None], values, table.shape, check_invariants=False)


EMBEDDING_BAG_MEAN = declare(
    "embedding_bag_mean",
    Kernel("embedding_bag_mean", __package__, outputs, differentiate=_differentiate, of=("table",)),
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.embedding_bag_mean,
    eager=eager.embedding_bag_mean,
)
