"""The listing of a run's settings, and docs/settings.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uqabench.cli import main
from uqabench.errors import InputError
from uqabench.settings.listing import page, rows
from uqabench.settings.run import RunConfig, run_config, run_layers
from uqabench.settings.schema import leaves

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_schema():
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == page(), "run `python -m uqabench.settings > docs/settings.md`"
    for leaf in leaves(RunConfig):
        assert f"| `{leaf.name.rpartition('.')[2]}` |" in written and leaf.about.help in written


def test_every_setting_is_listed_with_where_it_comes_from(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("base: paper\npretrain: {optim: {lr: 0.002}, encoder: {overrides: {layers: 3}}}\n")
    layers = run_layers("tiny", path, ("align.optim.lr=0.5", "pretrain.length=700"))
    found = {row.leaf.name: row for row in rows(layers)}
    assert list(found) == [leaf.name for leaf in leaves(RunConfig)]
    origins = {
        "seed": "default",
        "pretrain.encoder.preset": "preset paper",
        "pretrain.encoder.item_dim": "pretrain.encoder.preset",
        "pretrain.encoder.overrides": f"file {path} and the longest history",
        "pretrain.windows": "preset published",
        "pretrain.optim.lr": f"file {path}",
        "align.optim.lr": "--set align.optim.lr=0.5",
        "pretrain.length": "--set pretrain.length=700",
        "questions.train.history": "history_length (preset published)",
        "llm.questions.history": "history_length (preset published)",
    }
    assert {name: found[name].origin for name in origins} == origins
    config = run_config("tiny", path, ("align.optim.lr=0.5", "pretrain.length=700"))
    assert found["align.optim.lr"].value == config.align.optim.lr == 0.5
    assert found["align.optim.lr"].default == RunConfig().align.optim.lr
    assert found["pretrain.encoder.overrides"].value == {"layers": 3, "max_len": 700}


def test_a_section_alone():
    names = [row.leaf.name for row in rows(run_layers("tiny"), "pretrain.optim")]
    assert names == [leaf.name for leaf in leaves(RunConfig) if leaf.name.startswith("pretrain.optim.")]
    assert [row.leaf.name for row in rows(run_layers("tiny"), "seed")] == ["seed"]
    with pytest.raises(InputError, match=r"no section or setting 'pretrian' \(did you mean 'pretrain'\?\)"):
        rows(run_layers("tiny"), "pretrian")


def test_the_command(capsys):
    assert main(["settings", "demo", "--section", "align", "--set", "align.seed=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("align.seed")] == [["align.seed", "4", "--set"]]
    (line,) = [line for line in lines if line.startswith("align.adapter_lr")]
    assert "0.05" in line and "preset demo" in line and "0 to 1,000,000" in line and "default 1.0" in line
    assert main(["settings", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert (
        listed["align.strategy"]["choices"] == ["adapter", "full", "lora"]
        and listed["align.strategy"]["value"] == "full"
    )
    assert listed["pretrain.optim.lr"]["gt"] == 0 and listed["pretrain.optim.lr"]["from"] == "preset demo"
    assert main(["settings", "huge"]) == 2
