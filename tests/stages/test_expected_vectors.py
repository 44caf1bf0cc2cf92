"""The soft token of what an encoder expects: its likeness to an item's words follows the score of the item."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations import find_integration
from uqabench.llm.history import HistoryTokens
from uqabench.settings.stages import AlignConfig
from uqabench.stages.align import SoftPrompts, expected_vectors
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories, load_encoder


@pytest.fixture(scope="module")
def frozen(small_store, small_train, small_evaluation, pretrained, tmp_path_factory):
    def make(name):
        stage = encode_histories(
            small_store,
            pretrained["sl"],
            HistoryPairs.of([small_train, small_evaluation]),
            integration=find_integration(name),
            token_budget=4096,
            progress=False,
        )
        return FrozenStates.open(stage.build(tmp_path_factory.mktemp("states") / "x")[0])

    return make


def test_likeness_to_words_is_the_encoders_score(frozen, context, small_store, small_lm, pretrained):
    """With embeddings as wide as the item table every score can be told from the words' means, but for their noise:
    the two orders of the catalogue correlate for each history, and those of different histories do not as much."""
    states = frozen("segments+next")
    soft = SoftPrompts(states, AlignConfig(integration="segments+next"), small_lm)
    tokens = HistoryTokens(small_lm, context.builder(small_lm))
    weight = small_lm.model.get_input_embeddings().weight.detach()
    pairs = np.arange(40)
    expected = expected_vectors(small_store.catalogue, tokens, weight, soft, pairs)
    assert expected.shape == (40, weight.shape[1]) and float(expected.mean(0).abs().max()) < 1e-5
    assert float(expected.square().mean()) == pytest.approx(float(weight.square().mean()), rel=1e-4)

    encoder = load_encoder(pretrained["sl"], small_store)
    last = torch.from_numpy(np.array(states.pooled[pairs, -1]))
    scores = encoder.queries(last) @ encoder.item_weight.T
    texts = torch.stack([weight[torch.from_numpy(tokens.of(np.array([i])))].mean(0) for i in range(scores.shape[1])])
    likeness = expected @ texts.T
    scores, likeness = (x - x.mean(0) for x in (scores, likeness))
    scores, likeness = (x - x.mean(1, keepdim=True) for x in (scores, likeness))
    agreement = torch.nn.functional.normalize(likeness, dim=1) @ torch.nn.functional.normalize(scores, dim=1).T
    own = agreement.diagonal()
    assert float(own.mean()) > 0.3 and float(own.mean()) > float(agreement.mean()) + 0.3


def test_the_last_state_is_kept_and_nothing_else_for_other_integrations(frozen):
    states = frozen("segments+next")
    np.testing.assert_array_equal(states.pooled[:, 7], states.pooled[:, 6])
    assert set(states.scoring) == {"item_table", "head_weight", "head_bias"}
    assert frozen("segments").scoring is None


def test_states_of_something_that_scores_no_items(frozen, context, small_store, small_lm):
    states = frozen("segments")
    soft = SoftPrompts(states, AlignConfig(integration="segments"), small_lm)
    tokens = HistoryTokens(small_lm, context.builder(small_lm))
    weight = small_lm.model.get_input_embeddings().weight.detach()
    with pytest.raises(InputError, match="come from no encoder that scores items: choose segments"):
        expected_vectors(small_store.catalogue, tokens, weight, soft, np.arange(4))
