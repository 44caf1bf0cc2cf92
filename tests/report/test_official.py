"""The published score against counting by hand."""

from __future__ import annotations

import json

import pytest

from uqabench.errors import InputError
from uqabench.report.official import official_scores, official_table

DF, MF, LI = (
    "用户第3次（从1开始计数）浏览的商品，其品牌是什么？",
    "用户历史行为序列的长度是多少？",
    "用户最感兴趣的3个品牌是什么？",
)


def test_scores_count_what_starts_with_the_answer(tmp_path):
    rows = [(DF, "A", "A"), (DF, "A. 甲", "A"), (DF, "B", "A"), (MF, " A", "A"), (LI, "C", ["C", "D"]), (LI, "", "B")]
    path = tmp_path / "trm++.jsonl"
    path.write_text(
        "".join(json.dumps(dict(zip(("question", "prediction", "answer"), r, strict=True))) + "\n" for r in rows)
    )
    scores = official_scores(path)
    assert scores["df"] == pytest.approx(200 / 3, abs=1e-3) and scores["mf"] == 0 and scores["li"] == 50
    assert scores["sequence_understanding"] == 50 and scores["interest_perception"] == 50 and scores["overall"] == 50
    assert "ip" not in scores
    table = official_table([path], "paper")
    assert table.splitlines()[1].split()[:4] == ["trm++", "66.67", "0.00", "50.00"]
    assert "53.88" in table and len(table.splitlines()) == 2 + 7


def test_other_forms_are_refused(tmp_path):
    row = {"id": 0, "user": 1, "cut": 5, "subtask": "df", "prediction": "A", "answer": "A"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="prediction 1 is not in the published form"):
        official_scores(tmp_path / "p.jsonl")
