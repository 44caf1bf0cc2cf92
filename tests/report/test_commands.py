"""`uqabench report` and `uqabench compare`."""

from __future__ import annotations

import pytest

from uqabench.cli import main


@pytest.fixture
def call(capfd):
    def go(*arguments):
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return go


def test_report_writes_one_page_and_says_where(call, made_run, tmp_path):
    file = tmp_path / "deep" / "page.html"
    code, out, _ = call("report", made_run, "--out", file)
    assert code == 0 and out == f"page: {file}\n"
    page = file.read_text(encoding="utf-8")
    assert "<title>Run mine – uqabench</title>" in page and "<!-- " not in page.split("<body>")[0]
    assert not [word for word in ('src="', "@import", "url(http", '<link rel="stylesheet"') if word in page]


def test_report_without_results_is_one_sentence(call, tmp_path):
    code, out, err = call("report", tmp_path)
    assert code == 2 and not out and err.startswith("uqabench: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_compare_prints_paired_tests(call, made_run, made, small_store, small_evaluation, tmp_path):
    other = made(tmp_path / "other", small_store, small_evaluation, seed=4)
    code, out, _ = call("compare", made_run, other, "--methods", "hstu,text20=hstu")
    assert code == 0 and "HSTU in mine minus HSTU in other" in out and "Text20 in mine minus HSTU in other" in out
    assert "Holm p" in out and "84 of 84 and 84" in out
