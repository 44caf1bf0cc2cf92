"""The command line in process: what works, and that whatever is wrong is one sentence, an exit code, and no debris."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uqabench.cli import build_parser, main
from uqabench.data import InteractionStore
from uqabench.errors import InputError, RunError

COMMANDS = (
    (), ("prepare",), ("pretrain",), ("align",), ("evaluate",), ("run",), ("score",), ("questions",),
    ("questions", "show"), ("llm",), ("llm", "add"), ("llm", "train-demo"), ("doctor",),
)  # fmt: skip


@pytest.fixture
def run(tmp_path, small_store, small_run, capfd, monkeypatch):
    """`run(...)` calls `uqabench run` on the small log in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    sets = [word for setting in small_run for word in ("--set", setting)]

    def call(*args, methods="sasrec,oracle", source=("--source", "store", "--path", str(small_store.path))):
        base = ["run", "--preset", "tiny", "--name", "t", "--runs", str(tmp_path / "runs"), "--quiet", *sets]
        code = main([*base, *source, "--methods", methods, *args])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def call(tmp_path, capfd, monkeypatch):
    """Any command: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def go(*args):
        code = main([str(arg) for arg in args])
        return code, *capfd.readouterr()

    return go


def expect(outcome, code, pattern):
    """One line on stderr that matches, the exit code, no traceback."""
    got, _, stderr = outcome
    assert got == code, stderr
    lines = stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("uqabench: ") and "Traceback" not in stderr, stderr
    assert re.search(pattern, lines[0]), lines[0]
    return lines[0]


def debris(folder: Path):
    """Half-written files and folders anywhere below."""
    return [p for p in folder.rglob("*") if re.search(r"\.partial-|\.old-|\.work$", p.name)]


# What works


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


def test_a_run_prints_stages_and_table_and_nothing_on_stderr(run, tmp_path):
    code, stdout, stderr = run()
    assert code == 0 and stderr == ""
    for stage in ("data: ", "questions: ", "pretrain sasrec: ", "align sasrec: ", "evaluate sasrec: ", "evaluate oracle"):
        assert stage in stdout
    assert "SASRec" in stdout and "Oracle" in stdout and str(tmp_path / "runs" / "t" / "results.json") in stdout
    assert not debris(tmp_path)
    code, stdout, stderr = run("--resume")
    assert code == 0 and stdout.count("(reused)") == 6 and stderr == ""


def test_score_and_show_read_a_finished_run(run, call, tmp_path):
    assert run(methods="majority,oracle")[0] == 0
    folder = tmp_path / "runs" / "t"
    code, stdout, _ = call("score", folder / "evaluate" / "oracle" / "predictions.jsonl")
    assert code == 0 and json.loads(stdout)["oracle"]["overall"]["accuracy"] == 100.0
    code, stdout, _ = call("questions", "show", folder, 3)
    assert code == 0 and "truth: " in stdout and "oracle: " in stdout
    expect(call("questions", "show", folder, 999), 2, "There is no question 999: the run has questions 0 to")


def test_prepare_writes_a_store_and_prints_what_it_removed(call, tmp_path, small_log):
    options = [word for key in ("users", "items", "categories", "seed") for word in ("--option", f"{key}={small_log[key]}")]
    code, stdout, stderr = call("prepare", "synthetic", "--out", tmp_path / "store", "--quiet", *options)
    assert code == 0 and stderr == "" and "written to" in stdout
    assert len(InteractionStore.open(tmp_path / "store").users("train")) > 50


def test_doctor_says_that_the_default_path_works(call):
    code, stdout, _ = call("doctor")
    assert code == 0 and "torch" in stdout


# Names and settings that are wrong


@pytest.mark.parametrize(
    ("args", "pattern"),
    [
        (["--preset", "huge"], "There is no preset 'huge': choose one of tiny, demo"),
        (["--set", "pretrain.epoch=3"], "Unknown setting 'pretrain.epoch'.*the settings here are"),
        (["--set", "pretrain.optim.lr=fast"], "pretrain.optim.lr must be of type float, not 'fast'"),
        (["--set", "seed"], "--set seed: write it as section.field=value"),
        (["--set", "methods=hstu"], "methods must be a list, not 'hstu'"),
        (["--set", "pretrain=3"], "pretrain must be a mapping of settings, not 3"),
        (["--set", "align.optim.betas=[a, b]"], r"align.optim.betas\[0\] must be of type float"),
        (["--set", "questions.train.mix.xx=1"], "mix names no sub-task 'xx': choose from df"),
        (["--set", "pretrain.encoder.overrides={hats: 2}"], "The encoder sasrec has no setting 'hats'"),
        (["--set", "pretrain.encoder.inputs=none"], "The encoder's inputs are 'none'"),
        (["--set", "prompt.language=fr"], "no templates in language 'fr'"),
        (["--set", "prompt.attributes=[colour]"], "no attribute 'colour'"),
        (["--set", "questions.templates=nothing.yaml"], "nothing.yaml"),
        (["--seed", "-1"], "seed is -1: it must be at least 0"),
        (["--device", "abacus"], "device is 'abacus': choose cpu or cuda"),
        (["--methods", "sasrek"], r"There is no method 'sasrek' \(did you mean 'sasrec'\?\)"),
        (["--methods", "sasrec@huge"], "there is no variant 'huge': choose among q-former"),
        (["--methods", "sasrec,"], "There is no method ''"),
        (["--encoder", "nowhere.at_all:Encoder"], "The encoder nowhere.at_all:Encoder cannot be imported"),
        (["--encoder", "json:Encoder"], "The module json has no class 'Encoder'"),
        (["--llm", "no-such-model"], "no-such-model"),
        (["--llm", "./no/such/folder"], "no/such/folder' does not exist"),
        (["--config", "missing.yaml"], "The config file missing.yaml does not exist"),
        (["--source", "netflix"], "There is no source 'netflix': choose one of completejourney"),
        (["--source", "synthetic", "--path", "x"], "The source 'synthetic' reads no files"),
        (["--source", "synthetic", "--option", "users=many"], "users is 'many' and must be a whole number"),
        (["--source", "synthetic", "--option", "sizes=3"], "has no option 'sizes'"),
        (["--source", "synthetic", "--option", "users"], "--option users: write it as name=value"),
        (["--source", "synthetic", "--option", "users=[1"], r"--option users=\[1: '\[1' is not a YAML value"),
        (["--source", "store", "--path", "nowhere"], "nowhere is not a prepared data folder"),
        (["--items", "x.csv"], "--items and --columns describe a log of your own: give --interactions"),
        (["--exclude-items", "nothing.txt"], "nothing.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_sentence(run, tmp_path, args, pattern):
    expect(run(*args, source=()) if "--source" in args else run(*args), 2, pattern)
    assert not debris(tmp_path) and not (tmp_path / "runs" / "t" / "results.json").exists()
    assert not (tmp_path / "runs" / "t" / "pretrain").exists()


@pytest.mark.parametrize("text", ["pretrain:\n  length: [8\nseed: 1\n", "a: 1\n b: 2\n"])
def test_broken_yaml_is_told_by_file_and_line(run, tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    line = expect(run("--config", "mine.yaml"), 2, r"The config file mine.yaml is not readable YAML: .*line [23]")
    assert "column" in line
    assert not (tmp_path / "runs").exists()


def write_log(folder, header="uid,sku,when", rows=None):
    rows = rows or [f"u{u},i{(u + t) % 12},{1_600_000_000 + 1000 * t}" for u in range(40) for t in range(14)]
    (folder / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    items = [f"i{i},Thing number {i},kind {i % 4},brand {i % 3}" for i in range(12)]
    (folder / "items.csv").write_text("\n".join(["sku,name,kind,make", *items]) + "\n")


COLUMNS = "user=uid,item=sku,time=when,title=name,category=kind,brand=make"


def own_log(columns=COLUMNS):
    return ("--interactions", "log.csv", "--items", "items.csv", "--columns", columns)


def test_a_log_of_ones_own(run, tmp_path):
    write_log(tmp_path)
    asked = ("--set", "questions.train.mix={df: 1, mf: 1, ip: 0, ap: 0, li: 0, si: 0, it: 0}")
    asked += ("--set", "questions.evaluation.mix={df: 1, mf: 1, ip: 0, ap: 0, li: 0, si: 0, it: 0}")
    code, stdout, stderr = run(*asked, source=own_log(), methods="majority,oracle")
    assert code == 0, stderr
    assert "Oracle" in stdout


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [
        (COLUMNS.replace("uid", "user_id"), r"log\.csv.*user_id"),
        (COLUMNS.replace("name", "title_text"), r"items\.csv.*title_text"),
        (COLUMNS + ",colour=name", "--columns maps 'colour', which is no field: it can map user, item, time"),
        ("user", "--columns user: 'user' is not name=value"),
    ],
)
def test_an_unknown_column_is_named_with_its_file(run, tmp_path, columns, pattern):
    write_log(tmp_path)
    expect(run(source=own_log(columns)), 2, pattern)
    assert not debris(tmp_path) and not (tmp_path / "runs" / "t" / "data").exists()


def test_a_bad_row_stops_a_strict_run(run, tmp_path):
    write_log(tmp_path)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("u1,i1,yesterday\n")
    expect(run("--strict", source=own_log()), 2, r"log\.csv, row 561: unparsable time")
    assert not debris(tmp_path)


def test_a_log_that_filtering_empties_says_which_rule_did(run, tmp_path):
    write_log(tmp_path)
    expect(run("--set", "data.prepare.min_user_length=60", source=own_log()), 2, "60")
    assert not (tmp_path / "runs" / "t" / "data").exists()


# Files that are not as they were written


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_store, small_run):
    folder = tmp_path_factory.mktemp("finished")
    sets = [word for setting in small_run for word in ("--set", setting)]
    source = ["--source", "store", "--path", str(small_store.path), "--methods", "sasrec,majority"]
    assert main(["run", "--preset", "tiny", "--name", "t", "--runs", str(folder), "--quiet", *sets, *source]) == 0
    return folder / "t"


@pytest.fixture
def done(finished, tmp_path):
    """The folder of a finished run, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "t"))


def spoil(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "truncate":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    file.chmod(0o644)
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["truncate", "flip"])
@pytest.mark.parametrize(
    "name",
    [
        "questions/evaluation.arrow",
        "pretrain/sasrec/model.safetensors",
        "states/sasrec/pooled.npy",
        "align/sasrec/adapter.safetensors",
        "align/sasrec/llm/model.safetensors",
        "lm/model/tokenizer.json",
        "evaluate/majority/predictions.jsonl",
    ],
)
def test_a_corrupted_file_is_named(done, run, name, how):
    spoil(done / name, how)
    expect(run(methods="sasrec,majority"), 2, rf"{name} is missing or changed since it was written: delete .*run")
    assert not debris(done)


@pytest.mark.parametrize("name", ["interactions.arrow", "catalogue/items.arrow", "users.arrow"])
def test_a_corrupted_store_is_named(run, small_store, tmp_path, name):
    shutil.copytree(small_store.path, tmp_path / "store")
    source = ("--source", "store", "--path", "store")
    spoil(tmp_path / "store" / name, "truncate")
    expect(run(source=source), 2, rf"store/{name} has \d+ bytes and should have")
    shutil.copy(small_store.path / name, tmp_path / "store" / name)
    spoil(tmp_path / "store" / name, "flip")
    expect(run(source=source), 2, rf"store/{name} is corrupted")


def test_items_past_the_table_are_named(run, small_store, tmp_path):
    items = small_store.items.copy()
    items[7] = len(small_store.catalogue)
    replace(small_store, items=items).save(tmp_path / "store")
    expect(run(source=("--source", "store", "--path", "store")), 2, r"store: .*items past the catalogue's \d+")


def test_a_store_of_another_version_is_named(run, small_store, tmp_path):
    shutil.copytree(small_store.path, tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    (tmp_path / "store" / "manifest.json").write_text(json.dumps({**manifest, "format_version": 0}))
    expect(run(source=("--source", "store", "--path", "store")), 2, "manifest.json has format version 0.*prepare")


def test_an_artefact_of_another_version_is_named(done, run):
    path = done / "pretrain" / "sasrec" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    expect(run(), 2, "pretrain/sasrec was written by another version of uqabench: delete it")


def test_a_language_model_with_a_damaged_file_is_named(done, run, tmp_path):
    shutil.copytree(done / "lm" / "model", tmp_path / "model")
    spoil(tmp_path / "model" / "model.safetensors", "truncate")
    expect(run("--llm", "./model"), 2, r"model/model\.safetensors is damaged or truncated")
    assert not debris(tmp_path)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('{"id": 0}\n', "line 1"),
        ('{"id": 0, "user"', "line 1"),
        ("", "holds no predictions"),
    ],
)
def test_a_predictions_file_that_cannot_be_scored(call, tmp_path, text, pattern):
    (tmp_path / "p.jsonl").write_text(text)
    expect(call("score", tmp_path / "p.jsonl"), 2, rf"p\.jsonl.*{pattern}")
    expect(call("score", tmp_path / "missing.jsonl"), 2, "missing.jsonl")


def test_a_folder_without_a_run(call, tmp_path):
    expect(call("questions", "show", tmp_path, 0), 2, "config.json does not exist: run the stage")


# A disk that is full, a folder that cannot be written


def test_a_folder_that_cannot_be_written(run, call, tmp_path):
    (tmp_path / "file").write_text("")
    expect(run("--runs", str(tmp_path / "file")), 2, r"Cannot write .*file/t/questions.*choose a folder")
    expect(call("prepare", "synthetic", "--quiet", "--out", tmp_path / "file" / "store"), 2, "Cannot write .*file/store")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("stage", ["questions", "pretrain", "states", "align", "evaluate"])
def test_a_disk_that_fills_up_in_any_stage_fails_the_run_and_leaves_nothing(done, run, tmp_path, monkeypatch, stage):
    """The manifest of the stage is the write that finds no room; the same command goes on when there is room."""
    shutil.rmtree(done / stage)
    original = Path.write_bytes

    def write(self, data):
        if re.search(rf"/\.?{stage}[./]", str(self)) and "manifest.json" in self.name:
            original(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    expect(run(methods="sasrec,majority"), 1, rf"The disk is full while writing .*{stage}.*: free some space")
    assert not debris(tmp_path) and not list(done.glob(f"{stage}/**/manifest.json"))
    monkeypatch.undo()
    assert run(methods="sasrec,majority")[0] == 0
    assert list(done.glob(f"{stage}/**/manifest.json"))


def test_a_disk_that_is_really_full(run, tmp_path):
    """On a file system of a quarter of a megabyte, wherever its end is met; then with room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=260k", "uqabench-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        expect(run("--runs", str(disk)), 1, "The disk is full while writing .*: free some space")
        assert not [path for path in debris(disk) if path.suffix != ".work"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert run("--runs", str(disk))[0] == 0
        assert not debris(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Failed runs


def test_a_loss_that_is_no_number_fails_the_run(run, tmp_path):
    line = expect(run("--set", "pretrain.optim.lr=1e20", "--set", "pretrain.optim.warmup=0"), 1, "pretrain sasrec")
    assert "lower lr" in line
    assert not debris(tmp_path) and not (tmp_path / "runs" / "t" / "pretrain" / "sasrec").exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")],
)
def test_too_little_memory_fails_the_run(run, tmp_path, monkeypatch, error):
    def too_large(*args):
        raise error

    monkeypatch.setattr("uqabench.experiments.run.Run.questions", too_large)
    expect(run(), 1, "not enough memory.*token_budget")


def test_an_interrupted_run_says_how_to_go_on(run, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("uqabench.experiments.run.Run.questions", stop)
    expect(run(), 130, "stopped; the same command goes on")


def test_debug_raises(run, call, tmp_path):
    with pytest.raises(InputError, match="There is no method"):
        run("--debug", methods="hsut")
    with pytest.raises(RunError, match="pretrain sasrec"):
        run("--debug", "--set", "pretrain.optim.lr=1e20", "--set", "pretrain.optim.warmup=0")
    with pytest.raises(InputError, match="config.json"):
        call("questions", "show", tmp_path, 0, "--debug")


@pytest.mark.parametrize("args", [[], ["runn"], ["run", "--colour"], ["llm", "add", "gpt"], ["questions", "show", "x", "y"]])
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
