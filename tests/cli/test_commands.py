"""What the commands do and print."""

from __future__ import annotations

import json

import numpy as np
import pytest

from uqabench.cli import build_parser, main
from uqabench.data import InteractionStore

COMMANDS = (
    (), ("prepare",), ("pretrain",), ("align",), ("evaluate",), ("run",), ("score",), ("questions",),
    ("questions", "show"), ("llm",), ("llm", "add"), ("llm", "train-demo"), ("doctor",),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: uqabench " + " ".join(command)) and len(text) > 150
    if len(command) < 2:
        assert "uqabench run --preset demo" in text, "no examples"


def test_the_commands_are_the_ones_documented():
    names = build_parser().format_help()
    assert all(f"\n    {name}" in names for (name, *_) in COMMANDS[1:])


def test_a_run_prints_stages_and_table_and_nothing_on_stderr(run, tmp_path, debris):
    code, stdout, stderr = run()
    assert code == 0 and stderr == ""
    for stage in (
        "data store: ",
        "questions methods: ",
        "pretrain sasrec: ",
        "align sasrec: ",
        "evaluate sasrec: ",
        "evaluate oracle",
    ):
        assert stage in stdout
    assert "SASRec" in stdout and "Oracle" in stdout and str(tmp_path / "runs" / "t" / "results.json") in stdout
    assert not debris(tmp_path)
    nodes = stdout[: stdout.index("Sequence understanding")].strip().count("\n") + 1
    code, stdout, stderr = run()
    assert code == 0 and stdout.count("(reused)") == nodes and stderr == ""


def test_score_and_show_read_a_finished_run(run, call, tmp_path, expect, stage_folder):
    assert run(methods="majority,oracle")[0] == 0
    folder = tmp_path / "runs" / "t"
    code, stdout, _ = call("score", stage_folder(folder, "evaluate", "oracle") / "predictions.jsonl")
    assert code == 0 and json.loads(stdout)["oracle"]["overall"]["accuracy"] == 100.0
    code, stdout, _ = call("questions", "show", folder, 3)
    assert code == 0 and "truth: " in stdout and "oracle: " in stdout
    expect(call("questions", "show", folder, 999), 2, "There is no question 999: the run has questions 0 to")


def test_prepare_writes_a_store_and_prints_what_it_removed(call, tmp_path, small_log):
    options = [
        word for key in ("users", "items", "categories", "seed") for word in ("--option", f"{key}={small_log[key]}")
    ]
    code, stdout, stderr = call("prepare", "synthetic", "--out", tmp_path / "store", "--quiet", *options)
    assert code == 0 and stderr == "" and "written to" in stdout
    assert len(InteractionStore.open(tmp_path / "store").users("train")) > 50


def test_doctor_says_that_the_default_path_works(call):
    code, stdout, _ = call("doctor")
    assert code == 0 and "torch" in stdout


@pytest.mark.parametrize(
    "args", [[], ["runn"], ["run", "--colour"], ["llm", "add", "gpt"], ["questions", "show", "x", "y"]]
)
def test_what_the_parser_refuses_exits_with_two(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("usage: uqabench")


def test_a_number_that_is_written_stays_a_number(run, tmp_path):
    """config.json holds the settings of the run, as they can be given again."""
    assert run("--seed", "3", "--llm", "train", methods="oracle")[0] == 0
    config = json.loads((tmp_path / "runs" / "t" / "config.json").read_text())
    assert config["seed"] == 3 and config["methods"] == ["oracle"] and config["pretrain"]["length"] == 24
    assert np.isclose(config["data"]["prepare"]["evaluation_fraction"], 0.25)
