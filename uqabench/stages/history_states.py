"""The control `history-vector`: the vectors that the closed form aims at, in place of an encoder's pooled states.

A method that shows them has an adapter that loses nothing, so that its score is what the language model reads from a
vector that says all that the closed form wants of it.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from uqabench.artifact import Stage
from uqabench.errors import InputError
from uqabench.integrations import NEXT, Integration
from uqabench.llm.history import HistoryTokens, history_vectors, last_items
from uqabench.questions.render import history_items
from uqabench.stages.align import Context
from uqabench.stages.states import HistoryPairs, states_stage


def check_windows(name: str, integration: Integration) -> None:
    """InputError where an integration needs more of a history than the means of its last items."""
    pooling = integration.pooling
    if pooling is None or pooling.windows is None or NEXT in pooling.windows:
        raise InputError(
            f"history-vector has a vector a window of items, and the integration {name} reads more than windows: "
            "choose one that does not, such as mean-pooling, mean+last or segments."
        )


def history_states(context: Context, integration: Integration, *, progress: bool = True) -> Stage:
    """Write the language model's own vectors of all histories that questions are about, in the form that
    `states.encode_histories` gives an encoder's pooled states: pooled.npy (G, windows · LLM width).

    They are centred and scaled as those of the training histories are, so that no evaluation history has a part in it.
    """
    check_windows(type(integration).__name__, integration)
    pairs = HistoryPairs.of([context.train, context.evaluation])

    def fill(folder: Path) -> float:
        started = time.monotonic()
        lm = context.load_lm()
        weight = lm.model.get_input_embeddings().weight.detach().float()
        tokens = HistoryTokens(lm, context.builder(lm))
        histories = [
            history_items(context.store, user, cut, cut - start)
            for user, cut, start in zip(pairs.users.tolist(), pairs.cuts.tolist(), pairs.starts.tolist(), strict=True)
        ]
        trained_on = torch.from_numpy(np.unique(pairs.keys(context.train)))
        vectors = []
        for window in integration.pooling.windows:
            bags = tokens.bags(last_items(histories, window))
            vectors.append(history_vectors(weight, *bags, among=trained_on).cpu() * lm.embedding_scale)
        np.save(folder / "pooled.npy", torch.stack(vectors, dim=1).flatten(1).numpy())
        return time.monotonic() - started

    inputs = {name: context.inputs[name] for name in ("data", "llm")}
    return states_stage(pairs, integration, context.asking(), inputs, fill)
