"""Steps of two installations in turns, where both are this one: they agree to the bit."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from statistics import median

import pytest
import torch

from bench.against import ROWS, interval, largest_errors, main, origin, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("row", "starts", "kinds"),
    [
        ("hstu with times", 2, {"weights", "gradients", "outputs"}),
        ("pretrain gru4rec", 1, {"weights", "gradients"}),
    ],
)
def test_this_installation_against_itself(
    row: str, starts: int, kinds: set[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    file = tmp_path / "against.json"
    small = ["--preset", "tiny", "--starts", str(starts), "--repeats", "2", "--rows", row, "--json", str(file)]
    assert main([sys.executable, *small]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith(f"| {row}, preset tiny | ")
    (measured,) = json.loads(file.read_text())["rows"]
    assert measured["name"] == row and measured["errors"] == dict.fromkeys(kinds, 0.0)
    ratios = [ours / theirs for ours, theirs in measured["pairs"]]
    assert len(ratios) == 2 * starts and measured["ratio"] == pytest.approx(median(ratios))
    assert measured["ratio_interval"] == [min(ratios), max(ratios)]
    for fact in ("commits", "isa", "threads", "torch"):
        ours, theirs = measured[fact]
        assert ours == theirs


def test_an_installation_without_uqabench_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture):
    bare = tmp_path / "python"  # it knows no installed package
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    for python, reason in ((bare, "No module named"), (tmp_path / "nothing", "cannot be run")):
        out = tmp_path / "x.json"
        assert main([str(python), "--preset", "tiny", "--rows", "hstu", "--json", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(str(python)) and reason in error and error.count("\n") == 1
        assert not out.exists()


@pytest.mark.parametrize(
    ("wrong", "named"), [(["--rows", "hstu,gru5"], "gru5"), (["--rows", ","], "hstu"), (["--starts", "0"], "--starts")]
)
def test_wrong_arguments(wrong: list[str], named: str, capsys: pytest.CaptureFixture):
    assert main([sys.executable, *wrong]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and named in captured.err and captured.err.count("\n") == 1


def test_every_encoder_has_a_row_for_its_pass_and_one_for_pre_training():
    names = {row["encoder"] for row in ROWS.values()}
    assert names == {"hstu", "trm++", "sasrec", "gru4rec", "mamba4rec", "mamba2"}
    assert {f"pretrain {name}" for name in names} | names <= set(ROWS)


def test_errors_are_relative_to_the_largest_value():
    theirs = {"outputs": torch.tensor([1.0, -4.0]), "gradients a": torch.ones(2), "weights a": torch.zeros(1)}
    ours = {**theirs, "outputs": torch.tensor([2.0, -4.0]), "weights a": torch.zeros(2)}
    assert largest_errors(ours, theirs) == {"outputs": 0.25, "gradients": 0.0, "weights": None}
    assert largest_errors({**theirs, "gradients b": torch.ones(1)}, theirs)["gradients"] is None
    assert largest_errors({"outputs": torch.tensor([math.nan])}, {"outputs": torch.ones(1)}) == {"outputs": None}


def test_the_interval_leaves_out_what_its_level_allows():
    """With nine values the median lies outside the second and the eighth with probability 20 / 512."""
    values = [9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert interval(values) == [2, 8] and interval(values[:5]) == [1, 9]


def test_a_file_that_git_does_not_know_is_of_a_release(tmp_path: Path):
    assert origin(ROOT / "bench" / "against.py", "1.0") == origin(ROOT / "bench" / "row.py", "1.0") != "version 1.0"
    assert origin(Path(torch.__file__), "1.0") == "version 1.0"
    (tmp_path / "x.py").write_text("")
    assert origin(tmp_path / "x.py", "1.0") == "version 1.0"


def test_the_page_shows_the_recorded_results():
    page = (ROOT / "docs" / "performance.md").read_text()
    shown = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- end of table -->", page, re.DOTALL)
    assert len(shown) == 1
    for file, text in shown:
        assert text == table(json.loads((ROOT / file).read_text())["rows"]), f"{file}: see bench.against.table"
