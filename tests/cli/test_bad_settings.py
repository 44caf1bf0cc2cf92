"""Names, settings and logs that are wrong: one sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import pytest


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
        (["--set", "pretrain.encoder.inputs=none"], "pretrain.encoder.inputs is 'none': choose one of full"),
        (["--set", "align.integration=sum"], "The integration 'sum' is unknown: choose one of .*mean-pooling"),
        (["--set", "align.integration=json:Sum"], "The module json has no class 'Sum'"),
        (["--set", "efficiency.prices={inputs: 1}"], "prices has no 'inputs': choose among input, output"),
        (["--set", "prompt.language=fr"], "no templates in language 'fr'"),
        (["--set", "prompt.attributes=[colour]"], "no attribute 'colour'"),
        (["--set", "questions.templates=nothing.yaml"], "nothing.yaml"),
        (["--seed", "-1"], "seed is -1: it must be at least 0"),
        (["--device", "abacus"], "device is 'abacus': choose cpu, cuda or cuda:N"),
        (["--methods", "sasrek"], r"There is no method 'sasrek' \(did you mean 'sasrec'\?\)"),
        (["--methods", "sasrec@huge"], "there is no variant 'huge': choose among mean-pooling"),
        (["--methods", "sasrec,"], "There is no method ''"),
        (["--encoder", "nowhere.at_all:Encoder"], "The encoder nowhere.at_all:Encoder cannot be imported"),
        (["--encoder", "json:Encoder"], "The module json has no class 'Encoder'"),
        (["--llm", "no-such-model"], "no-such-model"),
        (["--llm", "./no/such/folder"], "no/such/folder' does not exist"),
        (["--llm", "~nobody-here/x"], "~nobody-here/x: the home folder that ~nobody-here stands for is unknown here"),
        (["--set", "llm.dtype=float16"], "sasrec trains the language model.*set llm.dtype=bfloat16"),
        (["--set", "llm.template_args={thinking: false}"], "llm.template_args.thinking: .* has no such argument"),
        (
            ["--set", "llm.train.model.max_positions=48"],
            r"llm.train: the longest prompt has \d+ tokens .* the 48 positions",
        ),
        (
            ["--methods", "sasrec@q-former", "--set", "llm.train.text_lengths=[1]", "--set", "align.n_queries=300"]
            + ["--set", "llm.train.model.max_positions=400"],
            "sasrec@q-former: the longest prompt .* the 400 positions",
        ),
        (["--config", "missing.yaml"], "The config file missing.yaml does not exist"),
        (["--source", "netflix"], "The source 'netflix' is unknown: choose one of .*completejourney"),
        (["--source", "synthetic", "--path", "x"], "The source 'synthetic' reads no files"),
        (["--source", "synthetic", "--option", "users=many"], "synthetic.users must be of type int, not 'many'"),
        (["--source", "synthetic", "--option", "sizes=3"], "has no option 'sizes'"),
        (["--source", "synthetic", "--option", "users"], "--option users: write it as name=value"),
        (["--source", "synthetic", "--option", "users=[1"], r"--option users=\[1: '\[1' is not a YAML value"),
        (["--source", "store", "--path", "nowhere"], "nowhere is not a prepared data folder"),
        (["--items", "x.csv"], "--items and --columns describe a log of your own: give --interactions"),
        (["--exclude-items", "nothing.txt"], "nothing.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_sentence(run, tmp_path, args, pattern, expect, debris):
    expect(run(*args, source=()) if "--source" in args else run(*args), 2, pattern)
    assert not debris(tmp_path) and not (tmp_path / "runs" / "t" / "results.json").exists()
    assert not (tmp_path / "runs" / "t" / "pretrain").exists()


@pytest.mark.parametrize("text", ["pretrain:\n  length: [8\nseed: 1\n", "a: 1\n b: 2\n"])
def test_broken_yaml_is_told_by_file_and_line(run, tmp_path, text, expect):
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
def test_an_unknown_column_is_named_with_its_file(run, tmp_path, columns, pattern, expect, debris):
    write_log(tmp_path)
    expect(run(source=own_log(columns)), 2, pattern)
    assert not debris(tmp_path) and not list((tmp_path / "runs" / "t").glob("data/*"))


def test_a_bad_row_stops_a_strict_run(run, tmp_path, expect, debris):
    write_log(tmp_path)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("u1,i1,yesterday\n")
    expect(run("--strict", source=own_log()), 2, r"log\.csv, row 561: unparsable time")
    assert not debris(tmp_path)


def test_a_log_that_filtering_empties_says_which_rule_did(run, tmp_path, expect):
    write_log(tmp_path)
    expect(run("--set", "data.prepare.min_user_length=60", source=own_log()), 2, "60")
    assert not list((tmp_path / "runs" / "t").glob("data/*"))
