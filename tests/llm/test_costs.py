"""Costs by shape against torch's own counter of operations and transformers' own cache."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from uqabench.llm.costs import ModelShape


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_operations_are_those_that_torch_counts(make_lm, kind, tokens):
    lm = make_lm(kind)
    lm.model.set_attn_implementation("eager")
    shape = ModelShape.of(lm.model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        lm.model(input_ids=torch.full((1, tokens), 7), logits_to_keep=1)
    counted = counter.get_total_flops()
    # Attention over the whole square in place of the causal half, and the rotary embedding's few products.
    square = 2 * shape.layers * shape.heads * shape.head_width * tokens * (tokens - 1)
    rotary = 2 * tokens * shape.head_width
    assert float(shape.prompt_flops([tokens])[0]) + square == pytest.approx(counted, abs=rotary)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_bytes_are_those_of_the_cache(make_lm, kind):
    lm = make_lm(kind)
    with torch.no_grad():
        output = lm.model(input_ids=torch.full((1, 23), 7), use_cache=True)
    cache = getattr(output, "cache", None) or output.past_key_values
    held = sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values))
    assert float(ModelShape.of(lm.model).cache_bytes([23])[0]) == held
