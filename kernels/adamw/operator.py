"""The step on a sparse gradient, and the flush: arguments checked, backend chosen."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import check_finite, check_indices, check_like, check_positive, check_same, check_tensor
from . import eager, native, reference, triton

_BACKENDS = Operator(
    "sparse_adamw_",
    backends={
        "reference": reference.sparse_adamw_,
        "eager": eager.sparse_adamw_,
        "native": native.sparse_adamw_,
        "triton": triton.sparse_adamw_,
    },
    default={"cpu": "native", "cuda": "triton"},
    dtypes={"native": (torch.float32,), "triton": (torch.float32, torch.bfloat16, torch.float16)},
)


def sparse_adamw_(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    last_step: Tensor,
    last_decay: Tensor,
    ids: Tensor,
    grads: Tensor,
    *,
    step: int,
    log_decay: float = 0.0,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> float:
    """Step `step` on the rows `ids` of a table, in place, by the rule of `uqabench.kernels.adamw`.

    Other rows are neither read nor written. Gradients of one row are summed first, in the order of occurrence (the
    Triton kernels': in pieces of up to 32, then the pieces): the result does not depend on the number of threads. The
    state of a new table is zero.

    Args:
        table: (V, d), floating; updated.
        exp_avg, exp_avg_sq: (V, d), table's dtype: first and second moments; updated.
        last_step: int64 (V,), the step at which each row was touched last; updated.
        last_decay: float64 (V,), `log_decay` after that step; updated.
        ids: int64 (M,), in [0, V); may repeat; may be empty.
        grads: (M, d), table's dtype: the gradient of row ids[i] is the sum of its entries.
        step: counts from 1, above every `last_step`.
        log_decay: what the call for step - 1 returned, 0 for step 1: the sum of log(1 - lr weight_decay) so far.
        lr, weight_decay: at least 0, their product below 1.
        betas: in [0, 1).
        eps: at least 0; added to the square root of the corrected second moment.

    Returns:
        `log_decay` for the next step.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    _check_state(table, exp_avg, exp_avg_sq, last_step, last_decay)
    check_tensor(ids, "ids", (None,), (torch.int64,))
    check_same(table, "table", dtype=False, ids=ids)
    check_like(table, "table", (table.dtype,), grads=(grads, (ids.shape[0], table.shape[1])))
    check_indices(ids, table.shape[0], "ids")
    check_positive(step, "step", integer=True)
    check_finite(log_decay, "log_decay")
    check_settings(lr, betas, eps, weight_decay)
    decayed = log_decay + math.log1p(-lr * weight_decay)
    run = _BACKENDS.of(table)
    run(table, exp_avg, exp_avg_sq, last_step, last_decay, ids, grads, step, decayed, lr, *betas, eps)
    return decayed


@torch.no_grad()
def flush_sparse_adamw_(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    last_step: Tensor,
    last_decay: Tensor,
    *,
    step: int,
    log_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """Brings every row up to date after step `step`, in place: pending decay of rows and moments, in plain torch.

    Args:
        table, exp_avg, exp_avg_sq, last_step, last_decay: as in `sparse_adamw_`.
        step: the last step taken, 0 for none.
        log_decay: what the call for it returned.
        betas: in [0, 1).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
    """
    _check_state(table, exp_avg, exp_avg_sq, last_step, last_decay)
    check_finite(log_decay, "log_decay")
    _check_betas(betas)
    eager.catch_up_(table, exp_avg, exp_avg_sq, last_step, last_decay, step, log_decay, *betas)


def _check_state(table: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, last_decay: Tensor) -> None:
    check_tensor(table, "table", (None, None))
    shape = rows, _ = tuple(table.shape)
    check_like(table, "table", (table.dtype,), exp_avg=(exp_avg, shape), exp_avg_sq=(exp_avg_sq, shape))
    check_like(table, "table", (torch.int64,), last_step=(last_step, (rows,)))
    check_like(table, "table", (torch.float64,), last_decay=(last_decay, (rows,)))


def _check_betas(betas: Any) -> None:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas must be two numbers, not {betas!r}.")
    for i, beta in enumerate(betas):
        check_finite(beta, f"betas[{i}]")
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}] must lie in [0, 1), not {beta}.")


def check_settings(lr: Any, betas: Any, eps: Any, weight_decay: Any) -> None:
    """The settings of a step are numbers in their ranges; see `sparse_adamw_`."""
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        check_finite(value, name)
        if value < 0:
            raise ValueError(f"{name} must be at least 0, not {value}.")
    if lr * weight_decay >= 1:
        raise ValueError(f"lr * weight_decay must be below 1, not {lr * weight_decay}.")
    _check_betas(betas)
