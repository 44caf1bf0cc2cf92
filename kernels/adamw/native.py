"""One pass over the touched rows in C++ (csrc/cpu/adamw.cpp): fp32 on CPU.

Memory latency dominates (docs/performance.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ..native import call
from ..operator import is_traced

# Not torch.library.custom_op, which takes 100 us more for an operator of 13 arguments that changes some of them.
_NAME = "uqabench::sparse_adamw"
SCHEMA = (
    "(Tensor(a!) table, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor(d!) last_step, Tensor(e!) last_decay, "
    "Tensor ids, Tensor grads, int step, float decayed, float lr, float beta1, float beta2, float eps) -> ()"
)
torch.library.define(_NAME, SCHEMA)


def sparse_adamw_(*args: object) -> None:
    """The operator; without torch's dispatcher, and so 15 us faster, where nobody traces."""
    if is_compiling() or is_traced(args):
        with torch.no_grad():
            torch.ops.uqabench.sparse_adamw.default(*args)
    else:
        _step(*args)


def _step(
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
    written = (table, exp_avg, exp_avg_sq, last_step, last_decay)
    call("sparse_adamw", *written, ids, grads, step, decayed, lr, beta1, beta2, eps)
    # Tells autograd that these tensors have changed, in case a graph has saved one of them.
    torch.autograd.graph.increment_version([x for x in written if not x.is_inference()])


torch.library.impl(_NAME, "cpu", _step)


@torch.library.register_fake(_NAME)
def _(*_arguments: object) -> None:
    return None
