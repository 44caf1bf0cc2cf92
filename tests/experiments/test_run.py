"""Whole runs on the small log: the results' contract, reuse, and that equal seeds give equal results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from uqabench.data import InteractionStore
from uqabench.errors import InputError
from uqabench.experiments.run import run
from uqabench.experiments.show import question_card
from uqabench.questions.questions import QuestionSet
from uqabench.questions.scoring import read_predictions, score_files
from uqabench.report.page import FILE_NAME
from uqabench.report.results import load_results
from uqabench.vocabulary import SUBTASKS, TASKS


def without_seconds(results):
    """results.json with the clock readings taken out."""
    methods = {name: {k: v for k, v in entry.items() if k != "seconds"} for name, entry in results["methods"].items()}
    return {**results, "methods": methods}


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_the_results_keep_their_contract(finished, small_config, small_store, stage_folder):
    results = load_results(finished)
    config = small_config()
    assert list(results["methods"]) == list(config.methods)
    assert (results["schema"], results["dataset"], results["llm"]) == (1, "store", "train")
    assert (results["seed"], results["split_seed"]) == (0, 0)
    n = len(QuestionSet.open(stage_folder(finished, "questions", "methods") / "evaluation.arrow"))
    for name, entry in results["methods"].items():
        assert set(entry) == {"overall", "tasks", "subtasks", "avg_tokens", "seconds", "predictions"}
        assert set(entry["tasks"]) == set(TASKS) and set(entry["subtasks"]) == set(SUBTASKS)
        low, high = entry["overall"]["ci95"]
        assert entry["overall"]["n"] == n and low <= entry["overall"]["accuracy"] <= high
        assert set(entry["seconds"]) == {"pretrain", "align", "evaluate"}
        assert (entry["seconds"]["pretrain"] > 0) == (name in ("sasrec", "trm++@q-former"))
    assert results["methods"]["oracle"]["overall"]["accuracy"] == 100.0
    assert set(results["pretrain"]) == {"sasrec", "trm++@q-former", "popularity"}
    assert {"recall@10", "ndcg@10", "perplexity"} <= set(results["pretrain"]["trm++@q-former"])
    assert sum(results["mix"].values()) == n
    tokens = {name: entry["avg_tokens"] for name, entry in results["methods"].items()}
    assert tokens["sasrec"] == pytest.approx(tokens["no-history"] + 1, abs=0.02)
    assert tokens["trm++@q-former"] == pytest.approx(tokens["no-history"] + 16, abs=0.02)
    assert tokens["text8"] == tokens["text8@zero-shot"] > tokens["no-history"] > tokens["oracle"] == 0


def test_no_training_user_is_asked_about_and_no_evaluation_user_trained_on(finished, small_store, stage_folder):
    training = set(small_store.users("train").tolist())
    for file in finished.glob("evaluate/*/predictions.jsonl"):
        assert not training & {row["user"] for row in read_predictions(file)}
    for label in ("methods", "language-model-v1"):
        path = stage_folder(finished, "questions", label) / "train.arrow"
        assert set(QuestionSet.open(path).user.tolist()) <= training
    card = json.loads((stage_folder(finished, "lm", "trained") / "model" / "card.json").read_text())
    assert card["split_hash"] == small_store.split_hash


def test_every_method_re_scores_offline_to_its_entry(finished):
    results = load_results(finished)
    for name, entry in results["methods"].items():
        scored = score_files([finished / entry["predictions"]], seed=0)[name]
        assert all(scored[key] == entry[key] for key in ("overall", "tasks", "subtasks", "avg_tokens"))


def test_the_shuffled_method_borrows_from_the_best_encoder(finished, stage_folder):
    results = load_results(finished)["methods"]
    best = max(("sasrec", "trm++@q-former"), key=lambda name: results[name]["overall"]["accuracy"])
    manifest = json.loads((stage_folder(finished, "evaluate", "shuffled") / "manifest.json").read_text())
    owner = json.loads((stage_folder(finished, "align", best.split("@")[0]) / "manifest.json").read_text())
    assert manifest["inputs"]["align"] == owner["content"] and manifest["config"]["shuffle"]
    assert results["shuffled"]["avg_tokens"] == results[best]["avg_tokens"]


def test_comparisons_pair_the_best_encoder_with_the_baselines(finished):
    results = load_results(finished)
    pairs = {(c["a"], c["b"]) for c in results["comparisons"] if c["scope"] == "overall"}
    best = max(("sasrec", "trm++@q-former"), key=lambda n: results["methods"][n]["overall"]["accuracy"])
    assert {(best, rival) for rival in ("majority", "no-history", "shuffled", "text8")} <= pairs
    for c in results["comparisons"]:
        if c["scope"] == "overall":
            gap = [results["methods"][c[side]]["overall"]["accuracy"] for side in "ab"]
            assert c["difference"] == pytest.approx(gap[0] - gap[1], abs=1e-3)


def test_the_tables_hold_every_method(finished):
    for suffix in ("txt", "md", "tex", "csv"):
        text = (finished / "tables" / f"table2.{suffix}").read_text()
        assert all(name in text.lower() for name in ("sasrec", "oracle", "text8", "trm++"))


def test_the_page_is_written_unless_it_is_left_out(finished, small_config, copy):
    assert b"</html>" in (finished / FILE_NAME).read_bytes()
    run(copy, small_config(), progress=False, page=False)
    assert not (copy / FILE_NAME).exists()  # the one of the run before might speak of other results
    assert (copy / "tables" / "calibration.txt").is_file() and (copy / "results.json").is_file()


def test_two_runs_from_nothing_are_equal_apart_from_seconds(execute, finished, tmp_path):
    execute(tmp_path / "again")
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (finished, tmp_path / "again"))
    assert without_seconds(first) == without_seconds(second)
    for manifest in finished.glob("*/**/manifest.json"):
        twin = tmp_path / "again" / manifest.relative_to(finished)
        assert json.loads(manifest.read_text())["content"] == json.loads(twin.read_text())["content"], manifest


def test_the_anonymising_salt_changes_no_result(execute, small_log, tmp_path, stage_folder):
    """Prepared twice from the source, each time with a key of its own."""
    options = ["data.source=synthetic", "data.path=null", f"data.options={json.dumps(small_log)}"]
    results = []
    for name in "ab":
        execute(tmp_path / name, *options, methods=("text8@zero-shot", "majority"))
        results.append(without_seconds(json.loads((tmp_path / name / "results.json").read_text())))
    ids = [InteractionStore.open(stage_folder(tmp_path / name, "data", "synthetic")).user_ids for name in "ab"]
    assert not set(ids[0]) & set(ids[1])
    assert results[0] == results[1]


def test_a_second_run_reuses_everything(execute, copy, monkeypatch):
    before = (copy / "results.json").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in copy.glob("*/*/manifest.json")}
    monkeypatch.setattr("uqabench.stages.training.Trainer.run", None)  # a step would be an error
    said = execute(copy)
    assert all("(reused)" in line for line in said)
    assert {path: path.stat().st_mtime_ns for path in copy.glob("*/*/manifest.json")} == stamps
    assert (copy / "results.json").read_bytes() == before


def test_a_changed_setting_rebuilds_what_depends_on_it(execute, copy):
    said = execute(copy, "align.seed=1", methods=("sasrec", "text8", "oracle"))
    built = {line.split(":")[0] for line in said if "(reused)" not in line}
    assert built == {"prompts", "align sasrec", "align text8", "evaluate sasrec", "evaluate text8"}


def test_another_seed_is_another_run(execute, copy):
    said = execute(copy, "seed=1", methods=("sasrec", "oracle"))
    rebuilt = {line.split(":")[0] for line in said if "(reused)" not in line}
    assert {"questions methods", "pretrain sasrec", "align sasrec", "evaluate sasrec"} <= rebuilt
    assert load_results(copy)["seed"] == 1
    assert load_results(copy)["methods"]["oracle"]["overall"]["accuracy"] == 100.0


@pytest.mark.parametrize(("until", "there"), [("pretrain", {"pretrain"}), ("align", {"pretrain", "align", "states"})])
def test_a_run_stops_after_the_stage_that_was_asked_for(execute, tmp_path, until, there):
    execute(tmp_path / "run", methods=("sasrec", "oracle"), until=until)
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert there <= made and not {"evaluate", "results.json"} & made
    assert ("align" in made) == (until == "align")


def test_swapping_the_language_model_in_its_folder_is_noticed(execute, finished, tmp_path, stage_folder):
    """A folder's name says nothing of what is in it."""
    shutil.copytree(stage_folder(finished, "lm", "trained") / "model", tmp_path / "model")
    methods = ("text8@zero-shot", "no-history")
    execute(tmp_path / "run", f"llm.name={tmp_path / 'model'}", methods=methods)
    before = load_results(tmp_path / "run")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file(
        {name: torch.randn_like(tensor) for name, tensor in weights.items()},
        tmp_path / "model" / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    said = execute(tmp_path / "run", f"llm.name={tmp_path / 'model'}", methods=methods)
    assert not [line for line in said if "(reused)" in line and not line.startswith(("questions", "data"))]
    assert load_results(tmp_path / "run")["methods"] != before["methods"]


def test_a_foreign_language_model_stops_before_pre_training(execute, finished, tmp_path, stage_folder):
    shutil.copytree(stage_folder(finished, "lm", "trained") / "model", tmp_path / "model")
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    foreign = {"split_hash": "f" * 64, "evaluation_hash": "f" * 64}
    (tmp_path / "model" / "card.json").write_text(json.dumps({**card, **foreign}))
    with pytest.raises(InputError, match="trained on users of another split"):
        execute(tmp_path / "run", f"llm.name={tmp_path / 'model'}", methods=("sasrec",))
    assert not (tmp_path / "run" / "pretrain").exists()


def test_an_encoder_of_ones_own_that_cannot_be_found_stops_before_anything_is_trained(execute, tmp_path):
    with pytest.raises(InputError, match="nowhere.at_all:Encoder cannot be imported"):
        execute(tmp_path / "run", methods=("nowhere.at_all:Encoder",))
    assert not (tmp_path / "run" / "lm").exists() and not (tmp_path / "run" / "pretrain").exists()


def test_a_device_that_is_not_there(small_config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="device is 'cuda', but .* no GPU"):
        run(tmp_path / "run", small_config("device=cuda"), progress=False)


def test_a_store_needs_its_path(execute, tmp_path):
    with pytest.raises(InputError, match="data.path: name the prepared folder"):
        execute(tmp_path / "run", "data.path=null", methods=("oracle",))


def test_histories_of_another_length_in_evaluation(execute, tmp_path, stage_folder):
    """Each set's questions are about its own N items, and so is what the encoder sees of them."""
    execute(tmp_path / "run", "questions.evaluation.history=12", methods=("sasrec", "oracle"))
    pairs = np.load(stage_folder(tmp_path / "run", "states", "sasrec-mean") / "pairs.npy")
    asked = QuestionSet.open(stage_folder(tmp_path / "run", "questions", "methods") / "evaluation.arrow")
    evaluated = np.isin(pairs[:, 0], asked.user)
    lengths = pairs[:, 1] - pairs[:, 2]
    assert lengths[evaluated].max() == 12 and lengths[~evaluated].max() == 24
    assert load_results(tmp_path / "run")["methods"]["oracle"]["overall"]["accuracy"] == 100.0


def test_a_question_is_shown_with_its_history_answers_and_truth(finished, small_store, stage_folder):
    questions = QuestionSet.open(stage_folder(finished, "questions", "methods") / "evaluation.arrow")
    card = question_card(finished, 5)
    truth = "ABCD"[questions.answer[5]]
    assert card.startswith("question 5 (") and f"truth: {truth}" in card
    assert f"oracle: {truth}  right" in card
    for name, entry in load_results(finished)["methods"].items():
        row = read_predictions(finished / entry["predictions"])[5]
        mark = "right" if row["prediction"] == row["answer"] else "wrong"
        assert f"{name}: {row['prediction']}  {mark}" in card
    items = small_store.sequence(int(questions.user[5]))[max(0, questions.cut[5] - 24) : questions.cut[5]]
    titles = [small_store.catalogue.text("title", int(small_store.catalogue.codes["title"][item])) for item in items]
    shown = card.split("\n")[2 : 2 + len(items)]
    assert all(line.startswith(title) for line, title in zip(shown, titles, strict=True))
    assert "回答" in question_card(finished, 5, "zh") or "用户" in question_card(finished, 5, "zh")


@pytest.mark.parametrize("number", [-1, 10_000])
def test_a_question_that_is_not_there(finished, number):
    with pytest.raises(InputError, match=f"There is no question {number}: the run has questions 0 to"):
        question_card(finished, number)


def test_answers_to_former_questions_are_not_shown(execute, copy):
    """A method that an earlier run asked about other questions is left out."""
    execute(copy, "questions.evaluation.seed=9", "questions.evaluation.n_questions=77", methods=("oracle", "uniform"))
    card = question_card(copy, 76)
    assert "oracle: " in card and "uniform: " in card
    assert "text8" not in card and "sasrec" not in card


def test_a_run_that_is_not_finished_has_no_card(tmp_path):
    with pytest.raises(InputError, match="config.json does not exist"):
        question_card(Path(tmp_path), 0)


def test_what_a_killed_writer_of_results_left_is_swept(execute, copy):
    for name in (".results.json.partial-1", ".config.json.partial-2", "tables/.table2.md.partial-3"):
        (copy / name).write_text("half")
    execute(copy)
    assert not list(copy.rglob(".*partial*"))


def test_a_run_goes_on_when_its_language_model_has_moved(finished, execute, stage_folder, tmp_path, monkeypatch):
    """As when the environment, and the model in it, is installed anew somewhere else."""
    methods = ("no-history@zero-shot",)
    shutil.copytree(stage_folder(finished, "lm", "trained") / "model", tmp_path / "a" / "models" / "mine")
    monkeypatch.setenv("UQABENCH_HOME", str(tmp_path / "a"))
    execute(tmp_path / "run", "llm.name=mine", methods=methods)
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setenv("UQABENCH_HOME", str(tmp_path / "b"))
    said = execute(tmp_path / "run", "llm.name=mine", methods=methods)
    assert any(line.startswith("llm mine") and line.endswith("(reused)") for line in said), said
    assert any(line.startswith("evaluate no-history") and line.endswith("(reused)") for line in said), said
    shutil.rmtree(stage_folder(tmp_path / "run", "evaluate", "no-history@zero-shot"))
    execute(tmp_path / "run", "llm.name=mine", methods=methods)
