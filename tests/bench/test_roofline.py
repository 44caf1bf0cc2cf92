"""The roofline report at small scale: every row runs and the file has its envelope. No figure is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import roofline
from bench.machine import Machine, measure_machine
from bench.peak_memory import peak_extra_bytes
from bench.row import Floor, Setting
from bench.rows import ROWS
from bench.work import Least

pytest.importorskip("transformers")  # the Mamba rows' baselines are its blocks

NAMES = "hstu trm++ sasrec gru4rec mamba1 mamba2 linear_cross_entropy linear_rank op_overhead".split()
NAMES += ["attention_length", "start_up"]
FIELDS = {"name", "seconds", "floor_seconds", "ratio", "baseline", "baseline_seconds", "speedup", "extra_bytes"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """The file that a run over all rows wrote, and the files beside it."""
    out = tmp_path_factory.mktemp("roofline") / "roofline.json"
    out.write_text("an older result")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert roofline.main(["--json", str(out), "--scale", "small", "--repeats", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    return json.loads(out.read_text()), [path.name for path in out.parent.iterdir()]


def test_every_name_has_a_row():
    assert set(ROWS) == set(NAMES)


def test_envelope(written: tuple[dict[str, Any], list[str]]):
    report, files = written
    assert files == ["roofline.json"]
    assert report["schema"] == roofline.SCHEMA and report["commit"]
    assert set(report["machine"]) == {"gemm_gflops", "copy_gbps", "cpu", "isa"}
    assert report["machine"]["gemm_gflops"] > 0 and report["machine"]["copy_gbps"] > 0
    assert [row["name"] for row in report["rows"]] == list(ROWS)
    assert all(set(row) == FIELDS for row in report["rows"])
    assert all(set(row) == FIELDS | {"row"} and row["row"] in ROWS for row in report["details"])


def test_figures_follow_from_one_another(written: tuple[dict[str, Any], list[str]]):
    report, _ = written
    for row in report["rows"] + report["details"]:
        assert row["seconds"] > 0 and row["floor_seconds"] > 0 and row["baseline_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["seconds"] / row["floor_seconds"])
        assert row["speedup"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
        asked = row["name"] in ("linear_cross_entropy", "linear_rank")
        assert row["extra_bytes"] is None or (asked and row["extra_bytes"] >= 0)


@pytest.mark.parametrize("rows", ["hstu,gru5rec", ","])
def test_rows_that_do_not_exist_are_told_in_one_sentence(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert roofline.main(["--json", str(tmp_path / "x.json"), "--rows", rows]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert all(name in captured.err for name in ROWS)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert roofline.main(["--json", str(tmp_path / "x.json"), "--repeats", "0"]) == 2
    assert "--repeats" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "x.json", tmp_path):
        assert roofline.main(["--json", str(out)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith(str(out)) and captured.err.count("\n") == 1


def test_help_shows_examples(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        roofline.main(["--help"])
    assert stop.value.code == 0
    assert "python -m bench.roofline --json" in capsys.readouterr().out


def test_pairs_take_turns_within_the_budget():
    calls = []
    sides = (lambda: calls.append("a"), lambda: calls.append("b"))
    ours, theirs = roofline.paired(*sides, repeats=3, budget=60.0)
    assert len(ours) == len(theirs) == 3
    assert "".join(calls) == "a" + "ab" * 4
    ours, theirs = roofline.paired(*sides, repeats=3, budget=0.0)
    assert len(ours) == len(theirs) == 1


def test_a_floor_adds_work_and_traffic():
    machine = Machine(gemm_gflops=2.0, copy_gbps=4.0, cpu="", isa="")
    assert Floor(Least(flops=6e9, bytes=4e9)).on(machine) == pytest.approx(3 + 1)
    assert Floor(Least(flops=6e9), seconds=0.5).on(machine) == 0.5


def test_peak_memory_counts_what_is_freed_again_and_not_what_is_kept():
    def call() -> torch.Tensor:
        torch.ones(16 << 20, dtype=torch.uint8)
        return torch.ones(8 << 20, dtype=torch.uint8)

    found = peak_extra_bytes(call, 8 << 20)
    if found is None:
        pytest.skip("this system cannot reset the peak of resident memory")
    assert 6 << 20 <= found <= 24 << 20


@pytest.mark.parametrize("name", ["mamba1", "linear_cross_entropy", "linear_rank", "attention_length"])
def test_both_sides_of_a_line_compute_the_same(name: str):
    compared = 0
    for row in ROWS[name]:
        made, results = row.make(Setting("cpu", is_small=True)), []
        (others,) = made.baselines.values()
        for call in (*made.ours, *others()):
            found = call()
            found = [found] if isinstance(found, torch.Tensor) else found or []
            results.append([part.clone() for part in found])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * max(1e-3, float(theirs.abs().max())))
            compared += 1
    assert compared


def test_the_machine_has_a_name():
    machine = measure_machine(repeats=1, gemm_size=64, copy_bytes=1 << 16)
    assert machine.cpu and machine.isa
    assert set(machine.to_dict()) == {"gemm_gflops", "copy_gbps", "cpu", "isa"}
