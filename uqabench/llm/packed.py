"""Rows of questions without padding: all tokens of a batch in one sequence, attention by stretches.

A row is a prefix and the rests of its prompts (`uqabench.llm.batches`). Within the prefix attention is causal, by the
operator for packed sequences (`uqabench.kernels.causal_attention`), which computes no score that a mask would hide;
each rest sees the prefix and itself, by torch's attention with a mask. The model's own code is driven as ever: what is
exchanged is its attention function, through transformers' interface for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from uqabench.kernels import causal_attention

_NAME = "uqabench_packed"
_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
# What a model may give to its attention function beside queries, keys and values: all that changes nothing here.
_PLAIN = ("dropout", "scaling", "sliding_window", "is_causal", "position_ids", "cache", "use_cache", "cache_position")


@dataclass(frozen=True)
class Stretches:
    """How the T tokens of a batch are cut: lengths of prefix, rests, prefix, rests, …, two a row; masks[r] (rests,
    prefix + rests), additive: what the tokens of row r's rests see of their row."""

    lengths: list[int]
    offsets: Tensor
    masks: list[Tensor]

    @classmethod
    def of(cls, prefixes: list[int], rests: list[list[int]]) -> Stretches:
        """From each row's length of prefix, and of its rests."""
        lengths = [n for prefix, of_row in zip(prefixes, rests, strict=True) for n in (prefix, sum(of_row))]
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        return cls(lengths, offsets, [_rests_see(p, row) for p, row in zip(prefixes, rests, strict=True)])


def _rests_see(prefix: int, rests: list[int]) -> Tensor:
    """Additive mask (Σ rests, prefix + Σ rests): the whole prefix, and what stands before in the own rest."""
    owner = torch.repeat_interleave(torch.arange(len(rests)), torch.tensor(rests))
    own = torch.tril(owner[:, None] == owner[None, :])
    hidden = torch.cat([torch.zeros(len(owner), prefix, dtype=torch.bool), ~own], dim=1)
    return torch.zeros(hidden.shape).masked_fill_(hidden, torch.finfo(torch.float32).min)


_STRETCHES: ContextVar[Stretches | None] = ContextVar("stretches", default=None)


@contextmanager
def attend_by_stretches(model: nn.Module, stretches: Stretches) -> Iterator[Tensor]:
    """Within the block the model's layers attend by `stretches`; yields the attention mask to give to the model, whose
    shape alone says that no other need be made."""
    _register()
    config = model.config.get_text_config(decoder=True)
    own = config._attn_implementation
    token = _STRETCHES.set(stretches)
    config._attn_implementation = _NAME
    try:
        yield torch.zeros(1, 1, 1, 1)
    finally:
        config._attn_implementation = own
        _STRETCHES.reset(token)


def attending_again(model: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What `torch.utils.checkpoint` computes a layer in, and computes it again in for the backward pass: by then the
    batch has passed, and the layers attend as they do now all the same."""
    stretches = _STRETCHES.get()
    return nullcontext(), nullcontext() if stretches is None else attend_by_stretches(model, stretches)


def can_pack(model: nn.Module) -> bool:
    """Whether the model is one of fp32 on CPU whose attention function can be exchanged; whether its logits are right
    then is for a comparison to say."""
    weight = model.get_input_embeddings().weight
    config = model.config.get_text_config(decoder=True)
    drops = any(getattr(config, name, 0) for name in _DROPOUTS)
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or drops:
        return False
    return bool(getattr(model, "_supports_attention_backend", False))


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attention)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """query (1, H, T, D), key and value (1, H or fewer, T, D) → (1, T, H, D), by the stretches of this pass."""
    stretches = _STRETCHES.get()
    for name, option in options.items():  # a cap, a sink, a bias: the model then gets padded rows
        if name not in _PLAIN and option is not None and not isinstance(option, bool):
            raise NotImplementedError(f"attention with {name}")
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    q, k, v = (x[0].transpose(0, 1).float() for x in (query, key, value))  # under autocast too: exact is not slower
    alone = causal_attention(q, k, v, stretches.offsets, scale=scale).split(stretches.lengths)
    rows = [a + b for a, b in zip(stretches.lengths[::2], stretches.lengths[1::2], strict=True)]
    keys, values, queries = k.split(rows), v.split(rows), q.split(stretches.lengths)[1::2]
    parts = []
    for row, mask in enumerate(stretches.masks):
        seen = torch.nn.functional.scaled_dot_product_attention(
            queries[row].transpose(0, 1)[None],
            keys[row].transpose(0, 1)[None],
            values[row].transpose(0, 1)[None],
            attn_mask=mask,
            scale=scale,
        )
        parts += [alone[2 * row], seen[0].transpose(0, 1)]
    return torch.cat(parts)[None].to(query.dtype), None
