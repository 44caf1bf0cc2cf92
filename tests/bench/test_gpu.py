"""The command for the day with a GPU, rehearsed on the CPU with tiny shapes: no typo may wait for that day."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")  # the Mamba baselines and the language model
pytest.importorskip("triton")

from bench.gpu import __main__ as command
from bench.gpu import goals, hot_checks, lengths, measure, steps, table, tune
from bench.gpu.report import Report
from bench.row import Setting

SMALL = Setting("cpu", is_small=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread_and_nothing_left_frozen():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    gc.unfreeze()


@pytest.mark.parametrize("group", [group for group in measure.GROUPS if group != "ceilings"])
def test_every_row_runs_and_agrees_with_fp32(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)  # minutes of compiling
    out = tmp_path / "rows.jsonl"
    rows = measure.group_rows(group)
    kept = _one_a_kind([row.name for row in rows])
    skip = [row.name for row in rows if row.name not in kept]
    for is_baseline in (False, True):
        measure.run(group, SMALL, out, baselines=is_baseline, share=1e-4, skip=skip)
    report = Report(tmp_path / "gpu.json", {"gpu": "none", "torch": "", "triton": ""})
    ended, begun = report.add_lines(out.read_text().splitlines())
    assert begun is None and ended == set(kept) and ended
    for row in report.rows.values():
        assert "problem" not in row, row
        assert row["seconds"] > 0 and row["rate"] > 0 and row["work"] > 0 and row["tokens"] > 0
        assert row.get("agrees", group in ("language", "pipeline")) is True, row
        for name, other in row.get("baselines", {}).items():
            assert other["seconds"], (row["name"], name, other["problem"])


def _one_a_kind(names: list[str]) -> list[str]:
    """Tiny shapes do not differ by the longest length that is in a row's name."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(f"{name.split()[0]} {name.split()[-1]} {'bias' in name}", name)
    return list(first.values())


def test_full_sizes_are_what_they_should_be():
    full = Setting("cpu", is_small=False)
    rows = {row.name: row for group in measure.GROUPS[1:] for row in measure.group_rows(group)}
    for goal in goals.GOALS:
        assert set(goal.rows) <= set(rows), goal.name
    assert rows[goals.LOSS].work(full) == 3 * 2 * 8_192 * 994_447 * 128
    attention = "hstu_attention d=128, uniform to 2048"
    drawn = lengths.draw("uniform", 2048, 65_536)
    assert rows[f"{attention} fwd"].work(full) == 4 * sum(n * (n + 1) // 2 for n in drawn) * 8 * 128
    assert rows[f"{attention} fwd+bwd"].work(full) == 3.5 * rows[f"{attention} fwd"].work(full)
    assert rows["swiglu width 1536 fwd+bwd"].work(full) == 8 * 65_536 * 1_536 * 2
    for row in rows.values():
        assert row.work(full) > row.work(SMALL) or row.group == "language" or "bags" in row.name, row.name


@pytest.mark.parametrize("kind", ["zipf", "uniform", "full"])
def test_lengths(kind: str):
    drawn = lengths.draw(kind, 50, 1_234)
    assert sum(drawn) == 1_234 and 1 <= min(drawn) and max(drawn) >= 48
    assert drawn == lengths.draw(kind, 50, 1_234)


def measured(name: str, share: float, unit: str = "tensor", **more: object) -> dict[str, object]:
    row = {"name": name, "unit": unit, "rate": share * 1e12, "backend": "triton", "seconds": 1e-3, "tokens": 65_536}
    return row | {"work": 1.0, "agrees": True, "error": 0.01} | more


def test_goals_pass_fail_and_wait():
    ceilings = {"tensor": 1e12, "memory": 1e12}
    fwd = [name for name in goals.GOALS[0].rows]
    rows = {name: measured(name, 0.7) for name in fwd}
    verdicts = {v.goal: v for v in goals.judge(rows, ceilings)}
    assert verdicts[goals.GOALS[0].name].passed is True and "70.0 % of 60 %" in verdicts[goals.GOALS[0].name].text
    assert verdicts["RMSNorm"].passed is None
    rows[fwd[1]] = measured(fwd[1], 0.59)
    assert next(goals.judge(rows, ceilings)).passed is False
    rows[fwd[1]] = measured(fwd[1], 0.9, agrees=False)
    assert next(goals.judge(rows, ceilings)).passed is False
    assert next(goals.judge(rows, {})).passed is None


def test_the_papers_run_is_projected_from_steps():
    steps_needed = ["hstu training step, uniform to 512", goals.LOSS]
    steps_needed += ["3 B model, adapter alignment step", "3 B model, evaluation step"]
    rows = {name: measured(name, 0.5, bandwidth=3e12) for name in steps_needed}
    found = goals.end_to_end(rows)
    # 310 M tokens at 1 ms for 65,536 are 4.73 s, encoder and loss each; the item table adds 10.43 s.
    expected = (2 * 4.730 + 10.43 + 90_000 * 144 / 65_536e3 + 7_192 * 144 / 65_536e3) / 60
    assert found.passed is True and found.text.startswith(f"{expected:.1f} minutes of 30")
    rows[goals.PIPELINE] = measured(goals.PIPELINE, 0.5) | {"seconds": 3e-3}  # what the pipeline calls is priced first
    expected += (3 * 4.730 - 2 * 4.730 - 10.43) / 60
    assert goals.end_to_end(rows).text.startswith(f"{expected:.1f} minutes of 30 (pre-training 0.2")
    del rows[goals.PIPELINE]
    del rows[goals.LOSS]
    assert goals.end_to_end(rows).passed is None


def test_the_command_without_a_gpu(tmp_path: Path):
    """A group is measured by a process of its own; results are on disk; the last line says that there is no GPU."""
    out = tmp_path / "gpu.json"
    arguments = ["--rehearse", "--steps", "build,measure", "--groups", "ceilings,rows", "--no-baselines"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments, "--json", str(out), "--minutes", "4"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("no GPU: ")
    report = json.loads(out.read_text())
    assert {"schema", "machine", "commit", "ceilings", "rows", "kernels", "steps", "goals"} == set(report)
    assert [step["result"] for step in report["steps"]] == ["ok"] * 3, report["steps"]
    assert len(report["rows"]) == 16 and report["ceilings"]["memory"] > 0
    assert "FAIL  SwiGLU" in done.stdout and "----  HSTU training step" in done.stdout


@pytest.mark.slow
def test_a_visit_is_rehearsed_to_its_end(tmp_path: Path):
    """All three calls, verdicts first, everything in one folder."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--rehearse", "--out", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("no GPU: ")
    for call, first in (("check", "PASS  hstu_attention"), ("tune", goals.PIPELINE), ("goals", "FAIL  HSTU")):
        text = (tmp_path / f"{call}.txt").read_text()
        assert text.startswith(first) and json.loads((tmp_path / f"{call}.json").read_text())["steps"]
    assert "minutes of 30 (pre-training" in done.stdout
    checks = json.loads((tmp_path / "checks.json").read_text())
    assert len(checks) > 20 and all(check["passed"] for check in checks)


def test_errors_are_of_each_row():
    """A small row that is wrong is seen beside large ones that are right; one that is nearly nothing counts little."""
    right = torch.tensor([[100.0, 100.0], [3.0, 4.0], [1e-6, 0.0]])
    wrong = right + torch.tensor([[0.0, 0.0], [0.0, 0.5], [1e-4, 0.0]])
    assert hot_checks.relative_rows(wrong, right) == pytest.approx(0.1)
    assert hot_checks.relative_rows(right * torch.nan, right) == float("inf")
    assert hot_checks.relative_rows(torch.tensor(3.0), torch.tensor(2.0)) == pytest.approx(0.5)
    assert set(hot_checks.CHECKED) | set(tune.TUNED) <= set(measure.all_rows())


def test_a_visit_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]):
    if not torch.cuda.is_available():
        assert command.main(["check"]) == 0 and "--rehearse runs the calls" in capsys.readouterr().out
    assert command.main(["fly"]) == 2 and "CALL has 'fly': choose from check, tune, goals" in capsys.readouterr().err


def test_what_the_build_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(steps.sysconfig, "get_path", lambda _: str(tmp_path))
    assert "Python.h is missing" in steps._build_native(tmp_path, tmp_path, 5, os.environ)


def test_the_plan(capsys: pytest.CaptureFixture[str]):
    assert command.main(["--dry-run", "--minutes", "4.5"]) == 0
    printed = capsys.readouterr().out
    assert "tests: at most 55 s" in printed and goals.LOSS in printed
    assert command.main(["--steps", "fly"]) == 2 and command.main(["--minutes", "0"]) == 2


def test_a_process_that_hangs_is_ended_with_its_children(tmp_path: Path):
    done = steps.run(["sh", "-c", "echo begun; sleep 60 & sleep 60"], 1.5, os.environ, tmp_path / "log")
    assert done.is_over and done.seconds < 15 and done.output == "begun\n"
    done = steps.run([sys.executable, "-c", "raise SystemExit(3)"], 60, os.environ, tmp_path / "log")
    assert done.code == 3 and not done.is_over


def test_a_crashed_process_goes_on_behind_the_row_it_crashed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report = Report(tmp_path / "gpu.json", {"gpu": "none", "torch": "", "triton": ""})
    session = command.Session(report, 9, "cpu", is_small=True, with_baselines=False, scratch=tmp_path)
    skipped = []

    def crashing(given: list[str], *_: object) -> steps.Ended:
        skip = (tmp_path / "skip.txt").read_text().split()
        skipped.append(skip)
        lines = [{"begin": "a"}, {**measured("a", 0.1), "group": "rows"}, {"end": "a"}, {"begin": "b"}]
        text = "\n".join(json.dumps(line) for line in lines) if not skip else ""
        (tmp_path / "rows.jsonl").write_text(text)
        return steps.Ended(0 if skip else 1, False, 0.1, "CUDA error: an illegal memory access was encountered\n")

    monkeypatch.setattr(steps, "run", crashing)
    step = session.measure_group("rows", 60, baselines=False)
    assert skipped == [[], ["a", "b"]] and step.result == "ok" and "illegal memory access" in step.text
    assert "illegal" in report.rows["b"]["problem"] and report.rows["a"]["seconds"]
    assert any("failed" in cell for cell in table.cells(report.rows["b"], {}))
