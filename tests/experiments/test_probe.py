"""`uqabench probe`: probes of a finished run, in its results and tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from uqabench.cli import main
from uqabench.errors import InputError
from uqabench.experiments.probe import probe_run
from uqabench.report import load_results


def test_probes_of_a_finished_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "evaluate").rglob("*.json*")}
    assert main(["probe", str(folder), "--methods", "sasrec", "--quiet"]) == 0
    assert "soft tokens" in capsys.readouterr().out
    assert set(load_results(folder)["probes"]) == {"sasrec"}
    results = probe_run(folder, progress=False)
    assert set(results["probes"]["sasrec"]) == {"states", "pooled", "soft tokens"}
    assert set(results["probes"]["trm++@q-former"]) == {"states", "soft tokens"}
    asked = results["methods"]["sasrec"]["subtasks"]
    for places in results["probes"].values():
        for scores in places.values():
            assert {name: score["n"] for name, score in scores["subtasks"].items()} == {
                name: score["n"] for name, score in asked.items()
            }
    assert {path.name for path in (folder / "tables").glob("probe.*")} == {
        f"probe.{s}" for s in ("txt", "md", "tex", "csv")
    }
    assert before == {path: path.stat().st_mtime_ns for path in before}
    probes = {path: path.stat().st_mtime_ns for path in (folder / "probe").rglob("manifest.json")}
    assert probe_run(folder, progress=False) == results
    assert probes == {path: path.stat().st_mtime_ns for path in probes}


def test_what_cannot_be_probed_is_named(finished: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no embedding method that the run .* choose among sasrec, trm"):
        probe_run(finished, ["text8"])
    with pytest.raises(InputError, match="no finished run"):
        probe_run(tmp_path)
