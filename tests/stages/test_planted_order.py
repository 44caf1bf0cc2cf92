"""On a log whose order is planted, an encoder learns what its untrained twin does not know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.data import PrepareConfig, open_source, prepare
from uqabench.integrations import find_integration, ridge_regression
from uqabench.questions.baselines import predict
from uqabench.questions.generate import generate
from uqabench.questions.statistics import paired_difference
from uqabench.settings import QuestionConfig, run_config
from uqabench.stages.pretrain import pretrain
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories, load_encoder

LOG = {
    "users": 600, "items": 240, "categories": 6, "mean_length": 60.0, "repeat_probability": 0.1, "seed": 7,
    "transitions": 0.8, "transition_lag": 2,
}  # fmt: skip


@pytest.mark.slow
def test_a_trained_encoder_answers_what_depends_on_the_order_and_its_twin_less(tmp_path):
    """Item prediction, asked of the encoders' own item scores and of a ridge probe of the vectors of `mean+last`."""
    torch.set_num_threads(1)
    prepared = PrepareConfig(max_sequence=64, min_user_length=20, evaluation_fraction=0.3)
    store = prepare(open_source("synthetic", **LOG), tmp_path / "store", prepared, progress=False)
    asked = {"mix": {"ip": 1.0}, "history": 32, "min_history": 12, "cuts_per_user": 3}
    train, evaluation = (
        generate(store, split, QuestionConfig(n_questions=n, seed=seed, **asked))[0]
        for split, n, seed in (("train", 1500, 1), ("evaluation", 1200, 2))
    )
    for baseline in ("popularity", "most-often-next", "seen-option"):
        assert (predict(baseline, evaluation, store, train) == evaluation.answer).mean() < 0.32
    titles = store.catalogue.codes["title"].astype(np.int64)
    options = torch.from_numpy(evaluation.option_values[:, :, 0].astype(np.int64))
    following = titles[store.items[store.offsets[train.user] + train.cut]]
    target = torch.nn.functional.one_hot(torch.from_numpy(following), len(store.catalogue.values["title"]))
    own, probed = {}, {}
    for trained in (True, False):
        config = run_config(
            "tiny",
            overrides=(
                "pretrain={length: 32, token_budget: 2048, batch_size: 64, windows: chunks}",
                "pretrain.optim={epochs: 100, max_steps: 600, lr: 3.0e-3}",
                "pretrain.encoder={encoder: gru4rec, preset: tiny}",
                f"pretrain.train={str(trained).lower()}",
            ),
        ).pretrain
        encoder, _ = pretrain(store, config, progress=False).build(tmp_path / f"pretrain-{trained}")
        pairs, integration = HistoryPairs.of([train, evaluation]), find_integration("mean+last")
        stage = encode_histories(store, encoder, pairs, integration=integration, token_budget=4096, progress=False)
        frozen = FrozenStates.open(stage.build(tmp_path / f"states-{trained}")[0])
        known, new = (
            torch.from_numpy(np.array(frozen.pooled[frozen.pairs.keys(questions)])) for questions in (train, evaluation)
        )
        model = load_encoder(encoder, store)
        by_item = model.queries(new[:, 1]) @ model.item_weight.T
        by_title = by_item.new_full((len(new), target.shape[1]), -torch.inf)
        by_title = by_title.scatter_reduce(1, torch.from_numpy(titles).expand(len(new), -1), by_item, "amax")
        own[trained] = by_title.gather(1, options).argmax(1).numpy() == evaluation.answer
        mean, spread = known.flatten(1).mean(0), known.flatten(1).std(0) + 1e-6
        weight, bias = ridge_regression((known.flatten(1) - mean) / spread, target.double(), l2=10.0)
        scores = ((new.flatten(1) - mean) / spread).double() @ weight.T + bias
        probed[trained] = scores.gather(1, options).argmax(1).numpy() == evaluation.answer
    assert own[True].mean() > 0.7 and abs(own[False].mean() - 0.25) < 0.06
    lead = paired_difference(probed[True], probed[False], evaluation.user, seed=0)
    assert lead.difference > 0 and lead.p_value < 0.05
