"""History vectors against the definition: mean token embedding of the text, centred, scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.llm.history import HistoryTokens, history_vectors
from uqabench.llm.prompts import PromptBuilder, PromptConfig


@pytest.fixture
def builder(small_lm, small_store, templates):
    return PromptBuilder(small_lm, small_store, templates, PromptConfig())


@pytest.fixture
def histories(small_store):
    return [small_store.sequence(user)[: 3 + user] for user in range(6)]


def test_bags_hold_the_tokens_of_each_items_line(small_lm, builder, histories):
    ids, starts = HistoryTokens(small_lm, builder).bags(histories)
    ends = [*starts[1:].tolist(), len(ids)]
    for history, start, end in zip(histories, starts.tolist(), ends, strict=True):
        lines = small_lm.encode([builder.item_line(int(item)) + "\n" for item in history])
        assert ids[start:end].tolist() == [token for line in lines for token in line]


def test_vectors_are_centred_means_of_the_size_of_a_token(small_lm, builder, histories):
    weight = small_lm.model.get_input_embeddings().weight.detach()
    tokens = HistoryTokens(small_lm, builder)
    got = history_vectors(weight, *tokens.bags(histories))
    means = torch.stack([weight[torch.from_numpy(tokens.of(history))].mean(0) for history in histories])
    centred = means - means.mean(0)
    expected = centred / centred.square().mean().sqrt() * weight.square().mean().sqrt()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_tokens_that_occur(small_lm, builder, histories):
    weight = small_lm.model.get_input_embeddings().weight.detach().clone().requires_grad_()
    ids, starts = HistoryTokens(small_lm, builder).bags(histories[:2])
    vectors = history_vectors(weight, ids, starts)
    (gradient,) = torch.autograd.grad(vectors[0].sum(), weight)
    used = np.unique(ids[: starts[1]].numpy())
    assert np.flatnonzero(gradient.abs().sum(1).numpy()).tolist() == used.tolist()


def test_equal_histories_give_finite_vectors(small_lm, builder, histories):
    weight = small_lm.model.get_input_embeddings().weight.detach()
    got = history_vectors(weight, *HistoryTokens(small_lm, builder).bags([histories[0]] * 3))
    assert got.isfinite().all()
