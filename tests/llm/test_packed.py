"""Rows without padding against padded rows and single prompts, on real models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uqabench.llm.batches import answer_loss, batch_hidden, collate, group_prompts
from uqabench.llm.layout import find_layout
from uqabench.llm.packed import Stretches, can_pack


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def lm(request, make_lm):
    return make_lm(request.param)


@pytest.fixture(scope="module")
def calm_lm(make_lm):
    """With weights so large that a text decides alone, as in the others, rounding errors of gradients grow to 0.3 %."""
    lm = make_lm("qwen2")
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.25)
    lm.model.requires_grad_(True)
    return lm


def shared_rows(lm, seed, sizes):
    """Groups of prompts of random ordinary tokens: per group, the prefix's length and those of its rests."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    prompts, keys = [], []
    for key, (prefix, rests) in enumerate(sizes):
        head = rng.integers(20, 60, prefix)
        prompts += [np.concatenate([head, [60 + i], rng.integers(20, 60, rest)]) for i, rest in enumerate(rests)]
        keys += [key] * len(rests)
    answers = rng.integers(0, 4, len(prompts))
    return group_prompts(prompts, np.array(keys), answers, np.arange(len(prompts))), prompts, answers


ROWS = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=4
)


@settings(max_examples=15)
@given(sizes=ROWS, seed=st.integers(0, 10**6))
@example(sizes=[(24, [1, 7, 12, 7]), (1, [1, 1, 9])], seed=4135)
def test_losses_and_gradients_are_those_of_padded_rows(calm_lm, sizes, seed):
    groups, _, _ = shared_rows(calm_lm, seed, sizes)
    parameters = list(calm_lm.model.parameters())
    found = []
    for packed in (False, True):
        batch = collate(groups, calm_lm, 0, with_answers=True, packed=packed)
        assert (batch.stretches is not None) == packed
        loss = answer_loss(calm_lm, batch, batch_hidden(calm_lm, batch, None))
        found.append((loss, torch.autograd.grad(loss, parameters)))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
    for mine, padded in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(mine, padded, rtol=1e-4, atol=1e-4 * float(padded.abs().max()) + 1e-9)


def test_logits_are_those_of_single_prompts(lm):
    groups, prompts, _ = shared_rows(lm, 3, [(70, [5, 9, 2]), (3, [4]), (31, [8, 1])])
    batch = collate(groups, lm, 0, with_answers=False, packed=True)
    assert batch.ids.shape[0] == 1
    with torch.no_grad():
        got = lm.logits(batch_hidden(lm, batch, None)[batch.prompt_end])
        for question, logits in zip(batch.questions.tolist(), got, strict=True):
            own = lm.model(input_ids=torch.from_numpy(prompts[question])[None]).logits[0, -1]
            torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)


def test_the_models_own_attention_is_back_afterwards(small_lm):
    before = small_lm.model.config._attn_implementation
    groups, prompts, _ = shared_rows(small_lm, 1, [(10, [3])])
    with torch.no_grad():
        own = small_lm.model(input_ids=torch.from_numpy(prompts[0])[None]).logits
        batch_hidden(small_lm, collate(groups, small_lm, 0, with_answers=False, packed=True), None)
        assert small_lm.model.config._attn_implementation == before
        assert torch.equal(own, small_lm.model(input_ids=torch.from_numpy(prompts[0])[None]).logits)


def test_recomputed_layers_attend_alike(make_lm):
    """Losses and gradients to the bit, though the backward pass computes layers again when the batch has passed."""
    found = []
    for recomputes in (False, True):
        torch.manual_seed(0)
        lm = make_lm("qwen2")
        lm.model.requires_grad_(True)
        if recomputes:
            lm.recompute_activations()
        groups, _, _ = shared_rows(lm, 2, [(12, [3, 4]), (7, [2])])
        batches = [collate(groups, lm, 0, with_answers=True, packed=packed) for packed in (True, False)]
        losses = [answer_loss(lm, batch, batch_hidden(lm, batch, None)) for batch in batches]
        found.append((losses, torch.autograd.grad(sum(losses), list(lm.model.parameters()))))
    assert all(torch.equal(*pair) for pair in zip(found[0][0], found[1][0], strict=True))
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))


def test_a_model_that_drops_attention_is_not_packed(make_lm):
    dropping = make_lm("qwen2")
    assert find_layout(dropping).packed
    dropping.model.config.attention_dropout = 0.1
    assert not can_pack(dropping.model)
    assert not find_layout(dropping).packed


def test_what_a_rest_sees():
    (mask,) = Stretches.of([2], [[1, 2]]).masks
    assert (mask == 0).int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
