"""Several runs into one report, and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")  # the rows' baselines need it

from bench import summary

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_recorded_results():
    shown = re.search(
        r"<!-- table: (\S+) -->\n(.*?)\n<!-- end of table -->", (ROOT / "docs" / "kernels.md").read_text(), re.DOTALL
    )
    assert shown, "docs/kernels.md has no performance table"
    file, text = shown.groups()
    assert text == summary.table(summary.read_report(ROOT / file)), f"run `python -m bench.summary {file}`"


def run_of(seconds: float, **changes: Any) -> dict[str, Any]:
    def row(name: str, factor: float) -> dict[str, Any]:
        figures = {"seconds": factor * seconds, "floor_seconds": 0.5, "ratio": 2 * factor * seconds}
        figures |= {"baseline_seconds": 3.0, "speedup": 3 / (factor * seconds), "extra_bytes": int(1e6 * seconds)}
        return {"name": name, "baseline": "a loop", **figures}

    machine = {"gemm_gflops": 100 * seconds, "copy_gbps": 10.0, "cpu": "A CPU", "isa": "avx2"}
    parts = {"rows": [row("hstu", 1), row("linear_rank", 1e-3)], "details": [{"row": "hstu", **row("padded", 2)}]}
    return {"schema": 1, "machine": machine, "commit": "abc", "threads": 2, **parts, **changes}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.json" for i in range(3)]
    for path, seconds in zip(paths, (1.0, 4.0, 2.0), strict=True):
        path.write_text(json.dumps(run_of(seconds)))
    return paths


def test_figures_are_medians_with_their_spread(files: list[Path], tmp_path: Path):
    out = tmp_path / "all.json"
    assert summary.main([*map(str, files), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["runs"] == 3 and report["machine"]["gemm_gflops"] == 200
    row, detail = report["rows"][0], report["details"][0]
    assert (row["seconds"], row["ratio"], row["speedup"]) == (2.0, 4.0, 1.5)
    assert row["spread"]["seconds"] == [1.0, 4.0] and row["extra_bytes"] == 4_000_000
    assert (detail["name"], detail["seconds"], detail["row"]) == ("padded", 4.0, "hstu")


def test_table(files: list[Path], capsys: pytest.CaptureFixture[str]):
    assert summary.main(list(map(str, files))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A CPU, avx2, 2 threads") and lines[0].endswith("medians of 3 runs.")
    assert lines[-2].startswith("| hstu |") and "| 2 s | 4.00 (2.00 to 8.00) | 1.5 × a loop | 1,096 |" in lines[-2]
    assert "| 2 ms |" in lines[-1] and lines[-1].endswith("|  |")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "cannot be read as a result file"),
        ('{"schema": 0}', "is no result file of schema 1"),
        (json.dumps(run_of(1.0, threads=8)), "differ in threads: 2 and 8"),
        (json.dumps(run_of(1.0, rows=[])), "differ in rows"),
    ],
)
def test_files_that_do_not_belong_are_named(files, content, message, capsys):
    files[1].write_text(content)
    assert summary.main(list(map(str, files))) == 2
    assert message in capsys.readouterr().err
