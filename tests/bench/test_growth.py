"""Exponents of growth are those of the laws that the numbers were made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.growth import exponent, main, table

SIZES = [0.01, 0.1, 1.0]


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.75, 1.0, 2.0])
def test_a_power_law_is_found(power):
    assert exponent(SIZES, [3.7 * size**power for size in SIZES]) == pytest.approx(power)


def test_noise_is_fitted_as_numpy_does():
    values = [1.0, 14.0, 90.0]
    assert exponent(SIZES, values) == pytest.approx(np.polyfit(np.log(SIZES), np.log(values), 1)[0])


def test_one_size_has_no_exponent():
    assert exponent([0.1], [3.0]) is None and exponent([0.1, 0.1], [3.0, 4.0]) is None


def row(name, unit, goal, value, peak=10**9, **more):
    return {
        "name": name,
        "unit": unit,
        "goal": goal,
        "value": value,
        "value_by_cpu": None if value is None else 2 * value,
        "peak_rss_bytes": peak,
    } | more


def test_a_table_has_every_row_and_says_what_is_missing(tmp_path, capsys):
    files = []
    for size in SIZES[::-1]:
        rows = [
            row("prepare", "s", 120.0, 100 * size, int(2e9 * size**0.5), peak_rss_goal_bytes=6 * 10**9),
            row("load", "sequences/s", 20_000.0, 50_000.0),
            row("render", "questions/s", 20_000.0, None, None, skipped="not done after 5 seconds")
            if size == 1
            else row("render", "questions/s", 20_000.0, 30_000.0 / size),
        ]
        files.append(tmp_path / f"scale-{size}.json")
        files[-1].write_text(json.dumps({"fraction": size, "rows": rows}))
    assert main([str(file) for file in files]) == 0
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["row", "goal", "1 %", "10 %", "100 %", "exponent of time", "exponent of memory"]
    assert lines[2] == ["prepare", "≤ 120 s, ≤ 6 GB", "1 s, 0.20 GB", "10 s, 0.63 GB", "100 s, 2.00 GB", "1.00", "0.50"]
    assert lines[3][1:3] == ["≥ 20,000 sequences/s", "50,000 sequences/s, 1.00 GB"]
    assert [float(cell) for cell in lines[3][-2:]] == [0, 0]
    assert lines[4][4] == "not done after 5 seconds" and lines[4][5] == "1.00"
    assert main([str(files[0]), "--by", "processor"]) == 0
    assert "| 200 s, 2.00 GB |" in capsys.readouterr().out


def test_the_page_shows_the_files_that_are_kept():
    root = Path(__file__).parents[2]
    files = [root / "bench" / "results" / f"scale-{size:g}.json" for size in SIZES]
    kept = table([json.loads(file.read_text()) for file in files])
    assert kept in (root / "docs" / "data.md").read_text(encoding="utf-8")
