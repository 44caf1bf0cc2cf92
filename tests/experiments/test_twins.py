"""The lead over the untrained twin: who is whose twin, and the difference over users and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from uqabench.experiments.twins import Scored, twin_differences
from uqabench.plan.methods import parse_method
from uqabench.questions.scoring import write_predictions
from uqabench.questions.statistics import holm, paired_difference
from uqabench.settings import run_config
from uqabench.settings.run import MethodConfig

USERS, ASKED = 12, 5


@pytest.fixture
def scored(tmp_path):
    """`scored(entry, share, seeds)`: a method whose answers are right with that probability, and which were right."""

    def make(entry, share, seeds=(0,), cells=()):
        methods, folders, right = {}, {}, {}
        for seed in seeds:
            config = run_config("tiny", overrides=(f"seed={seed}",))
            methods[seed] = parse_method(entry, config)
            folders[seed] = tmp_path / f"{methods[seed].name}-{seed}"
            folders[seed].mkdir()
            key = [seed, *methods[seed].name.encode()]
            right[seed] = np.random.default_rng(key).random(USERS * ASKED) < share
            rows = [
                {"id": i, "user": i // ASKED, "subtask": "df", "prediction": "A" if hit else "B", "answer": "A"}
                for i, hit in enumerate(right[seed])
            ]
            write_predictions(folders[seed] / "predictions.jsonl", rows)
        return Scored(methods, folders, cells), right

    return make


def test_each_trained_encoder_is_paired_with_its_own_twin(scored):
    names = [
        *("sasrec", "sasrec@untrained", "sasrec@segments", "sasrec@segments+untrained", "sasrec@cl", "hstu@untrained"),
        *("bag-of-items", "bag-of-items@untrained", "history-vector", "sasrec@shuffled", "text20", "no-history"),
    ]
    plain = MethodConfig("gru as it starts", "gru4rec", {"pretrain.train": False})
    found = [scored(name, 0.5)[0] for name in [*names, "gru4rec", plain]]
    pairs = {record["method"]: record["twin"] for record in twin_differences(found, "letter")}
    assert pairs == {
        "sasrec": "sasrec@untrained",
        "sasrec@segments": "sasrec@segments+untrained",
        "bag-of-items": "bag-of-items@untrained",
        "gru4rec": "gru as it starts",
    }


def test_seeds_are_pooled_with_a_user_s_answers_under_all_of_them_as_one(scored):
    trained, right = scored("sasrec", 0.8, (0, 1, 2), cells=(0, 1, 2))
    twin, wrong = scored("sasrec@untrained", 0.4, (0, 1, 3), cells=(3, 4, 5))
    other, better = scored("gru4rec", 0.5)
    other_twin, worse = scored("gru4rec@untrained", 0.5)
    first, second = twin_differences([trained, twin, other, other_twin], "letter")
    assert first["seeds"] == [0, 1] and first["cells"] == [0, 1, 2] and first["twin_cells"] == [3, 4, 5]
    users = np.tile(np.repeat(np.arange(USERS), ASKED), 2)
    expected = paired_difference(
        np.concatenate([right[0], right[1]]), np.concatenate([wrong[0], wrong[1]]), users, seed=0
    )
    assert first["difference"] == pytest.approx(expected.difference, abs=1e-4) and first["users"] == USERS
    assert first["ci95"] == pytest.approx(list(expected.ci95), abs=1e-4) and first["n"] == 2 * USERS * ASKED
    assert second["difference"] == pytest.approx(100 * (better[0].mean() - worse[0].mean()), abs=1e-4)
    assert "cells" not in second
    adjusted = holm([first["p_value"], second["p_value"]]).tolist()
    assert [first["p_holm"], second["p_holm"]] == adjusted and first["p_holm"] < 0.05 < second["p_holm"]


def test_without_twins_there_is_nothing(scored):
    assert twin_differences([scored("sasrec", 0.5)[0], scored("hstu@untrained", 0.5)[0]], "letter") == []
