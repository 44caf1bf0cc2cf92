"""One pass over the touched rows in C++ (csrc/cpu/adamw.cpp): fp32 on CPU.

9,944 rows of 128 in a table of 994,447, CPU time of one thread: 5.4 ms a step, plain torch 46 ms, torch's dense fused
step 99 ms and its default one 1,080 ms. The way to memory dominates: the same rows side by side take 1.4 ms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ..native import call, is_traced

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
    # So that autograd notices a graph that has kept what is now changed.
    torch.autograd.graph.increment_version([x for x in written if not x.is_inference()])


torch.library.impl(_NAME, "cpu", _step)


@torch.library.register_fake(_NAME)
def _(*_arguments: object) -> None:
    return None
