"""The measurement at the smallest size: every row has what the file promises."""

from __future__ import annotations

import json

import pytest

from bench.scale import ROWS, in_own_process, main


@pytest.mark.slow
def test_rows_at_a_thousandth(tmp_path):
    file = tmp_path / "scale.json"
    assert main(["--fraction", "0.001", "--json", str(file), "--work", str(tmp_path / "work")]) == 0
    result = json.loads(file.read_text())
    assert [row["name"] for row in result["rows"]] == list(ROWS) and result["fraction"] == 0.001
    for row in result["rows"]:
        assert row["value"] > 0 and row["peak_rss_bytes"] > 2**20 and row["goal"] == ROWS[row["name"]].goal
        assert 0 < row["cpu_seconds"] and 0 < row["wall_seconds"] and 0 < row["cpu_seconds_before"]


def test_a_row_that_takes_too_long_is_in_the_file_as_such(tmp_path):
    row = in_own_process("store_open", tmp_path, limit=0.01)
    assert row == {
        "name": "store_open", "value": None, "unit": "ms", "peak_rss_bytes": None, "goal": 50.0,
        "peak_rss_goal_bytes": None, "skipped": "not done after 0.01 seconds",
    }  # fmt: skip


def test_a_row_that_fails_says_why(tmp_path):
    row = in_own_process("store_open", tmp_path)
    assert row["name"] == "store_open" and "is not a prepared data folder" in row["failed"]


def test_unknown_rows_are_named(capsys):
    assert main(["--rows", "store_open,loading"]) == 2
    assert "--rows has 'loading': choose from" in capsys.readouterr().err
