"""The control without an encoder: its states are the closed form's own targets, and the closed form finds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations import find_integration
from uqabench.llm.history import window_marker
from uqabench.settings.stages import AlignConfig
from uqabench.stages.align import PromptedMethod, SoftPrompts, align, training_histories
from uqabench.stages.history_states import history_states
from uqabench.stages.states import FrozenStates


@pytest.fixture
def known(context):
    return replace(context, inputs={**context.inputs, "llm": "of the test"})


@pytest.mark.parametrize("name", ["mean-pooling", "last", "mean+last", "segments"])
def test_the_closed_form_recovers_its_own_target(known, tmp_path, name):
    artifact, _ = history_states(known, find_integration(name)).build(tmp_path / "states")
    frozen = FrozenStates.open(artifact)
    config = AlignConfig(integration=name, closed_form=True, train=False)
    lm = known.load_lm()
    soft = SoftPrompts(frozen, config, lm)
    windows = soft.integration.pooling.windows
    histories = training_histories(known, lm, soft)
    (pooled,) = histories.all_inputs()
    assert pooled.shape[1:] == (len(windows), lm.width) and frozen.width == lm.width
    for token, window in enumerate(windows):
        marked = pooled[:, token] + window_marker(lm, window).detach() * lm.embedding_scale
        torch.testing.assert_close(marked, histories.vectors(window), atol=1e-5, rtol=1e-4)
    method = PromptedMethod("history-vector", 0, frozen, artifact.content)
    metrics = align(known, method, config, progress=False).build(tmp_path / "align")[0].json("metrics.json")
    held_out = [value for key, value in metrics.items() if key.startswith("ridge_held_out_r_squared")]
    assert len(held_out) == len(windows) and min(held_out) > 0.999


def test_no_evaluation_history_has_a_part_in_another_s_vector(known, tmp_path):
    """With other evaluation questions the vectors of training histories keep their bits."""
    rows = np.arange(len(known.evaluation))[: len(known.evaluation) // 2]
    contexts = [known, replace(known, evaluation=known.evaluation.select(rows))]
    vectors = []
    for number, each in enumerate(contexts):
        artifact, _ = history_states(each, find_integration("mean+last")).build(tmp_path / str(number))
        frozen = FrozenStates.open(artifact)
        vectors.append(np.array(frozen.pooled[np.unique(frozen.pairs.keys(each.train))]))
    np.testing.assert_array_equal(*vectors)


def test_all_states_are_refused(known):
    with pytest.raises(InputError, match="reads more than windows: choose one that does not"):
        history_states(known, find_integration("q-former"))
