"""Experiments: what their YAML means, that all of them run, share nodes, keep failures apart and end alike."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from uqabench.errors import InputError
from uqabench.experiments.experiment import run_experiments, survey_experiments
from uqabench.experiments.spec import axes_of, cells, experiment_names, load_experiment, load_experiments
from uqabench.integrations import integration_names
from uqabench.report.results import load_experiment as load_results
from uqabench.settings import patched, run_config

TABLES = {"encoders": 17, "pretraining": 6, "finetuning": 2 * len(integration_names()), "model-size": 16,
          "sequence-length": 5, "choose-pretraining": 12, "controls": 18, "efficiency": 13, "goals": 11,
          "integration-twins": 2 * len(integration_names()), "soft-prompt-place": 6, "stability": 6}  # fmt: skip
PAPER_SIZES = [(4, 256, 4), (4, 512, 8), (8, 512, 8), (8, 768, 12), (12, 768, 12), (24, 1024, 8), (24, 1536, 12),
               (24, 2048, 16)]  # fmt: skip


@pytest.mark.parametrize("preset", ["tiny", "demo", "small", "published", "paper"])
@pytest.mark.parametrize("name", TABLES)
def test_every_experiment_has_its_cells_in_every_preset(name, preset):
    found = cells(load_experiment(name), run_config(preset))
    assert len(found) == TABLES[name]
    assert len({(cell.method.name, *cell.axes.values()) for cell in found}) == len(found)


def test_the_experiments_stand_in_the_order_of_the_papers_tables():
    assert experiment_names() == tuple(TABLES)
    apart = [name for name in TABLES if load_experiment(name).choice or load_experiment(name).costs]
    assert [each.name for each in load_experiments(["all"])] == [name for name in TABLES if name not in apart]
    assert apart == ["choose-pretraining", "efficiency", "soft-prompt-place"]


def test_settings_are_not_chosen_on_evaluation_users(tmp_path):
    experiments = load_experiments(["choose-pretraining"])
    with pytest.raises(InputError, match="evaluation users must not be asked for that: add --validation"):
        survey_experiments(tmp_path / "run", experiments, run_config("tiny"))
    asked = patched(run_config("tiny"), {"questions.users": "validation"})
    rows = survey_experiments(tmp_path / "run", experiments, asked)
    assert sum(row["node"].startswith("pretrain") for row in rows) == 12 and not (tmp_path / "run").exists()


def test_published_sizes_and_lengths_are_the_papers():
    found = cells(load_experiment("model-size"), run_config("published"))
    shapes = [cell.method.config.pretrain.encoder.overrides for cell in found if cell.method.name == "trm++"]
    assert [(s["layers"], s["width"], s["heads"]) for s in shapes] == PAPER_SIZES
    found = cells(load_experiment("sequence-length"), run_config("published"))
    assert [cell.method.config.pretrain.length for cell in found] == [32, 64, 128, 256, 512]


def test_scaled_sizes_keep_the_papers_ratios():
    found = cells(load_experiment("model-size"), run_config("demo"))
    shapes = [cell.method.config.pretrain.encoder.overrides for cell in found if cell.method.name == "trm++"]
    scaled = [(s["layers"], s["width"], s["heads"]) for s in shapes]
    assert scaled == [(layers // 4, width // 8, heads // 4) for layers, width, heads in PAPER_SIZES]
    found = cells(load_experiment("sequence-length"), run_config("demo"))
    assert [cell.method.config.pretrain.length for cell in found] == [8, 16, 32, 64, 128]
    items = {cell.method.config.pretrain.length * cell.method.config.pretrain.batch_size for cell in found}
    assert items == {4096}, "cells train on different numbers of items a step"


def write(path, text):
    path.write_text(text)
    return str(path)


def test_ones_own_experiment_crosses_methods_axes_and_seeds(tmp_path):
    own = load_experiment(
        write(
            tmp_path / "mine.yaml",
            "title: Mine\nseeds: [0, 3]\nsweeps:\n"
            "  - methods: [gru4rec, {name: wide, base: gru4rec, set: {pretrain.encoder.overrides.hidden: 96}}]\n"
            "    axes:\n      a: {x: {pretrain.objective: sl}, y: {pretrain.objective: cl}}\n"
            "      b: {set: [align.n_queries], values: [[8], [16]], scale: {tiny: [4]}}\n"
            "  - methods: [oracle]\n",
        )
    )
    found = cells(own, run_config("tiny"))
    assert len(found) == 2 * 2 * 2 * 2 + 2
    assert axes_of(found) == {"a": ["x", "y"], "b": ["2", "4"]}
    wide = [cell for cell in found if cell.method.name == "wide" and cell.axes == {"a": "y", "b": "4"}]
    assert [cell.method.config.seed for cell in wide] == [0, 3]
    config = wide[0].method.config
    assert (config.pretrain.objective, config.align.n_queries) == ("cl", 4)
    assert config.pretrain.encoder.overrides["hidden"] == 96
    assert {cell.method.config.seed for cell in cells(own, run_config("tiny"), (7,))} == {7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x\nsweeps: []\n", "needs at least one sweep with a method"),
        ("title: x\nsweeps: [{methods: [hstu]}]\nseeds: []\n", "one seed"),
        ("title: x\nsweeps: [{methods: [hstu], axis: {}}]\n", "axis"),
        ("title: x\nsweeps: [{methods: [hsut]}]\n", "no method 'hsut'"),
        ("title: x\nsweeps: [{methods: [hstu], axes: {a: {}}}]\n", "map the name of each value"),
        ("title: x\nsweeps: [{methods: [hstu], axes: {a: {set: [seed], values: [[1, 2]]}}}]\n", "needs 1 numbers"),
        ("title: x\nsweeps: [{methods: [hstu], axes: {a: {x: {pretrain.objectiv: sl}}}}]\n", "objective"),
        ("title: x\npaper: table9\nsweeps: [{methods: [hstu]}]\n", "table2"),
        ("sweeps: [{methods: [hstu]}]\n", "title"),
        ("title: [\n", "YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        cells(load_experiment(write(tmp_path / "mine.yaml", text)), run_config("tiny"))
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_an_experiment_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no experiment 'sizes': choose one of encoders, .*all, or name a YAML file"):
        load_experiment("sizes")
    with pytest.raises(InputError, match="does not exist"):
        load_experiment(str(tmp_path / "mine.yaml"))


@pytest.fixture(scope="module")
def small(small_config):
    """The small run's settings, so short that every experiment's cells take a moment."""
    return patched(small_config(), {"pretrain.optim.max_steps": 1, "align.optim.max_steps": 1})


@pytest.fixture(scope="module")
def everything(small, tmp_path_factory):
    """All experiments in one folder."""
    folder = tmp_path_factory.mktemp("experiments") / "run"
    return folder, run_experiments(folder, load_experiments(["all"]), small, "tiny", progress=False)


def test_all_experiments_run_and_keep_their_contract(everything):
    folder, finished = everything
    assert {name: len(results["cells"]) for name, results in finished.items()} == {
        each.name: TABLES[each.name] for each in load_experiments(["all"])
    }
    for name, results in finished.items():
        assert results == load_results(folder / "experiments" / name)
        assert {cell["status"] for cell in results["cells"]} == {"done"}
        scopes = {}
        for row in results["rows"]:
            scopes.setdefault(row["cell"], []).append(row["scope"])
            low, high = row["ci95"]
            assert 0 <= low <= row["accuracy"] <= high <= 100 and row["n"] > 0
        assert list(scopes) == list(range(len(results["cells"]))) and all(len(s) == 11 for s in scopes.values())
        for suffix in ("txt", "md", "tex", "csv"):
            assert (folder / "experiments" / name / f"{name}.{suffix}").stat().st_size > 100
    sizes = {cell["axes"]["size"]: cell["sizes"] for cell in finished["model-size"]["cells"]}
    assert [size["model_size"] for size in sizes.values()] == sorted(size["model_size"] for size in sizes.values())


def test_experiments_share_what_they_have_in_common(everything):
    folder, finished = everything
    predictions = {
        name: {cell["predictions"] for cell in results["cells"] if cell["method"] == "trm++"}
        for name, results in finished.items()
    }
    assert (
        predictions["encoders"] <= predictions["pretraining"] and predictions["encoders"] <= predictions["finetuning"]
    )
    assert len(list((folder / "data").iterdir()) if (folder / "data").exists() else []) <= 1
    assert len(list((folder / "questions").iterdir())) == 2
    manifests = [json.loads(path.read_text()) for path in folder.glob("pretrain/*/manifest.json")]
    assert len({manifest["key"] for manifest in manifests}) == len(manifests)


def test_a_finished_experiment_is_reused_whole(everything, small):
    folder, finished = everything
    rows = survey_experiments(folder, load_experiments(["all"]), small)
    assert {row["action"] for row in rows if row["node"] != "prompts"} == {"reuse"}
    again = run_experiments(folder, load_experiments(["pretraining"]), small, "tiny", progress=False)
    assert again["pretraining"] == finished["pretraining"]


def test_a_cell_that_fails_is_shown_as_such(small, tmp_path):
    path = write(
        tmp_path / "mine.yaml",
        "title: Mine\nsweeps:\n  - methods: [trm++]\n    axes:\n"
        "      heads: {set: [pretrain.encoder.overrides.heads], values: [[2], [3]]}\n"
        "  - methods: [oracle]\n",
    )
    results = run_experiments(tmp_path / "run", [load_experiment(path)], small, "tiny", progress=False)["mine"]
    assert [cell["status"] for cell in results["cells"]] == ["done", "failed", "done"]
    assert "heads" in results["cells"][1]["error"] and {row["cell"] for row in results["rows"]} == {0, 2}
    assert "failed" in (tmp_path / "run" / "experiments" / "mine" / "mine.txt").read_text()


def test_seeds_are_an_axis_of_their_own(small, tmp_path):
    path = write(tmp_path / "mine.yaml", "title: Mine\nseeds: [0, 1]\nsweeps: [{methods: [sasrec, uniform]}]\n")
    results = run_experiments(tmp_path / "run", [load_experiment(path)], small, "tiny", progress=False)["mine"]
    assert [(cell["method"], cell["seed"]) for cell in results["cells"]] == [
        ("sasrec", 0), ("sasrec", 1), ("uniform", 0), ("uniform", 1)]  # fmt: skip
    paths = [cell["predictions"] for cell in results["cells"]]
    assert len(set(paths)) == 4 and results["seeds"] == [0, 1]


def test_a_run_and_an_experiment_of_one_folder_share_nodes(everything, small):
    from uqabench.experiments.run import survey_run

    folder, _ = everything
    rows = survey_run(folder, replace(small, methods=("sasrec", "text20", "majority")))
    assert {row["action"] for row in rows if row["node"] != "prompts"} == {"reuse"}
