"""Causal softmax attention through torch's fused attention, over groups of similar length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..ragged import length_groups
from ..tracing import never_traced

# The bound on L * L in a group. Torch's kernel keeps no scores, so it only bounds the padded copies of q, k and v.
_CELLS = 2**22


@never_traced  # because the groups differ from batch to batch, and each would be compiled anew
def causal_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> Tensor:
    if q.shape[0] == 0:
        return (q.sum() + k.sum()) * v
    outputs, tokens = [], []
    for group in length_groups(offsets, _CELLS):
        heads_first = (group.gather(x).transpose(1, 2) for x in (q, k, v))
        output = scaled_dot_product_attention(*heads_first, is_causal=True, scale=scale)
        outputs.append(group.real(output.transpose(1, 2)))
        tokens.append(group.tokens)
    order = torch.cat(tokens)
    return torch.cat(outputs).index_select(0, torch.empty_like(order).index_copy_(0, order, _count(order)))


def _count(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0], device=x.device)
