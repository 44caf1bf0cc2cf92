"""One pass over the touched rows by Triton kernels (triton_kernels.py): fp32, bf16 and fp16, arithmetic in fp32.

The gradients of one row are summed in the order of occurrence: first in pieces of up to 32, then the pieces. The launch
never waits for a value from the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .native import SCHEMA

_NAME = "uqabench::sparse_adamw_triton"
torch.library.define(_NAME, SCHEMA)


@torch.no_grad()
def sparse_adamw_(*args: object) -> None:
    torch.ops.uqabench.sparse_adamw_triton.default(*args)


@torch.library.impl(_NAME, ("cuda", "cpu"))  # on CPU tensors under TRITON_INTERPRET=1
def _(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    last_step: Tensor,
    last_decay: Tensor,
    ids: Tensor,
    grads: Tensor,
    step: int,
    decayed: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """One step in place; arguments as the operator has checked them."""
    from . import triton_kernels

    written = (table, exp_avg, exp_avg_sq, last_step, last_decay)
    triton_kernels.launch_step(*written, ids, grads, step, decayed, lr, beta1, beta2, eps)
    # Tells autograd that these tensors have changed, in case a graph has saved one of them.
    torch.autograd.graph.increment_version([x for x in written if not x.is_inference()])


@torch.library.register_fake(_NAME)
def _(*_arguments: object) -> None:
    return None
