"""Two runs on the questions that both were asked."""

from __future__ import annotations

import numpy as np
import pytest

from uqabench.errors import InputError
from uqabench.questions.scoring import read_predictions
from uqabench.questions.statistics import holm, paired_difference
from uqabench.report.compared import compare_results, identities


def test_a_question_is_itself_in_any_order_with_any_letters(small_evaluation):
    order = np.random.default_rng(0).permutation(len(small_evaluation))
    turned = small_evaluation.select(order).rotated(2)
    assert sorted(identities(turned)) == sorted(identities(small_evaluation))
    assert len(set(identities(small_evaluation))) == len(small_evaluation)
    assert [identities(small_evaluation)[i][0] for i in order] == [key for key, _ in identities(turned)]


def test_shared_questions_are_paired_by_what_they_ask(made, made_run, small_store, small_evaluation, tmp_path):
    """The other run asks a part of the questions, in another order and with other letters."""
    order = np.random.default_rng(1).permutation(len(small_evaluation))[:50]
    other = made(tmp_path / "other", small_store, small_evaluation.select(order).rotated(1), seed=9)
    table = compare_results(made_run, other)

    def right(run, method):
        rows = read_predictions(run / "evaluate" / method.replace("@", "-") / "predictions.jsonl")
        return np.array([row["prediction"] == row["answer"] for row in rows])

    found = {(record["a"], record["scope"]): record for record in table.records}
    for method, name in (("hstu", "HSTU in mine"), ("trm++@q-former", "Trm++@q-former in mine")):
        a, b = right(made_run, method)[order], right(other, method)
        record = found[name, "overall"]
        assert record["difference"] == pytest.approx(100 * (a.mean() - b.mean())) and record["n"] == 50
        expected = paired_difference(a, b, small_evaluation.user[order], seed=0)
        assert (record["p_value"], record["ci95_low"]) == (expected.p_value, expected.ci95[0])
    np.testing.assert_allclose([r["p_holm"] for r in table.records], holm([r["p_value"] for r in table.records]))
    assert any("50 of 84 and 50" in note for note in table.notes)
    assert [record["difference"] for record in table.records if record["a"].startswith("Oracle")] == [0.0] * len(
        [record for record in table.records if record["a"].startswith("Oracle")]
    )


def test_methods_of_other_names_can_be_paired(made_run):
    table = compare_results(made_run, made_run, ["oracle=uniform", "hstu"])
    assert {record["scope"] for record in table.records} >= {"overall", "df", "it"}
    assert next(r for r in table.records if r["scope"] == "overall")["difference"] > 50
    with pytest.raises(InputError, match="has no method 'gru4rec': choose from Text20, HSTU"):
        compare_results(made_run, made_run, ["gru4rec"])


def test_runs_that_ask_other_questions_are_told_apart(
    made, made_run, small_store, small_evaluation, small_train, tmp_path
):
    train = made(tmp_path / "train", small_store, small_train)
    with pytest.raises(InputError, match="have no question in common: their settings of questions.evaluation differ"):
        compare_results(made_run, train)
    elsewhere = made(tmp_path / "elsewhere", small_store, small_evaluation)
    for manifest in (elsewhere / "evaluate").glob("*/manifest.json"):
        manifest.write_text(manifest.read_text().replace(small_store.content_hash, "0" * 64))
    with pytest.raises(InputError, match="prepared from different data"):
        compare_results(made_run, elsewhere)
