"""Predictions on disk and their score, in both forms."""

import json

import numpy as np
import pytest

from uqabench.errors import InputError
from uqabench.questions.scoring import (
    best_methods,
    compare,
    detect_subtask,
    is_correct,
    read_predictions,
    score,
    score_files,
    write_predictions,
)
from uqabench.questions.statistics import accuracy, paired_difference
from uqabench.vocabulary import SUBTASKS, TASKS

PUBLISHED = {
    "df": "用户倒数第2次浏览的商品的品牌是什么？",
    "mf": "用户的浏览序列长度是多少？",
    "ip": "用户下一个可能点击的商品的标题是什么？",
    "ap": "用户下一个可能点击的商品的类目是什么？",
    "li": "用户最感兴趣的3个类目是什么？",
    "si": "用户近期最感兴趣的品牌是什么？",
    "it": "用户对类目偏好的转移路径是什么？",
}


def make_rows(seed: int = 0, n: int = 210, right: float = 0.5) -> list[dict]:
    """Rows of 21 users and every sub-task, as the evaluate stage writes them."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        answer = "ABCD"[i % 4]
        prediction = answer if rng.random() < right else "ABCD"[(i + 1) % 4]
        row = {"id": i, "user": f"u{i % 21:02x}", "cut": 40 + i, "subtask": SUBTASKS[i % 7], "prediction": prediction}
        rows.append({**row, "answer": answer, "logits": [0.5, -1.0, 2.25, 0.0], "tokens": 100 + i, "method": "hstu"})
    return rows


def test_score_is_the_share_of_right_letters_by_question():
    rows = make_rows()
    right = np.array([row["prediction"] == row["answer"] for row in rows])
    entry = score(rows, seed=3)
    expected = accuracy(right, np.array([row["user"] for row in rows]), seed=3)
    assert entry["overall"]["accuracy"] == pytest.approx(100 * right.mean(), abs=1e-4)
    assert entry["overall"]["ci95"] == pytest.approx(list(expected.ci95), abs=1e-4)
    assert entry["overall"]["n"] == len(rows)
    for task, subtasks in TASKS.items():
        of_task = np.array([row["subtask"] in subtasks for row in rows])
        assert entry["tasks"][task]["accuracy"] == pytest.approx(100 * right[of_task].mean(), abs=1e-4)
        assert entry["tasks"][task]["n"] == sum(entry["subtasks"][subtask]["n"] for subtask in subtasks)
    assert entry["avg_tokens"] == 204.5
    assert (entry["unit"], entry["rule"]) == ("user", "letter")
    json.dumps(entry, allow_nan=False)


def test_only_subtasks_that_were_asked_have_a_score():
    entry = score([row for row in make_rows() if row["subtask"] in ("df", "si")], seed=0)
    assert set(entry["subtasks"]) == {"df", "si"}
    assert set(entry["tasks"]) == {"sequence_understanding", "interest_perception"}


def test_levels_of_a_subtask_are_scored_apart(tmp_path):
    levels = {"ip": ("natural", "matched"), "ap": ("natural",)}
    rows = make_rows()
    for row in rows:
        own = levels.get(row["subtask"])
        if own:
            row["level"] = own[row["id"] // 7 % len(own)]
    write_predictions(tmp_path / "p.jsonl", rows)
    entry = score(read_predictions(tmp_path / "p.jsonl"), seed=0)
    assert list(entry["levels"]) == ["ip:matched", "ip:natural", "ap:natural"]
    assert {scope: cell["n"] for scope, cell in entry["levels"].items()} == {
        "ip:matched": 15, "ip:natural": 15, "ap:natural": 30
    }  # fmt: skip
    assert entry["levels"]["ap:natural"] == entry["subtasks"]["ap"] and entry["subtasks"]["ip"]["n"] == 30
    right = np.array([row["prediction"] == row["answer"] for row in rows if row.get("level") == "matched"])
    assert entry["levels"]["ip:matched"]["accuracy"] == pytest.approx(100 * right.mean(), abs=1e-4)
    without = score([{k: v for k, v in row.items() if k != "level"} for row in rows], seed=0)
    assert "levels" not in without and without["subtasks"] == entry["subtasks"] and without["tasks"] == entry["tasks"]
    others = [{**row, "prediction": "A"} for row in rows]
    assert compare(rows, others, scope="ip:matched", seed=0)["n"] == 15
    assert compare(rows, others, scope="ip", seed=0)["n"] == 30
    with pytest.raises(InputError, match="No question belongs to 'ap:matched'"):
        compare(rows, others, scope="ap:matched", seed=0)
    with pytest.raises(InputError, match="'xp:natural' is no task or sub-task"):
        compare(rows, others, scope="xp:natural", seed=0)
    with pytest.raises(InputError, match="level"):
        write_predictions(tmp_path / "p.jsonl", [{**rows[0], "level": "Natural "}])


def test_reading_gives_what_was_written_and_the_same_score(tmp_path):
    rows = make_rows()
    path = tmp_path / "deep" / "hstu.jsonl"
    as_numpy = [{**row, "id": np.int64(row["id"]), "logits": np.array(row["logits"], np.float32)} for row in rows]
    write_predictions(path, as_numpy)
    assert read_predictions(path) == rows
    assert [file.name for file in path.parent.iterdir()] == ["hstu.jsonl"]
    assert score_files([path], seed=1) == {"hstu": score(rows, seed=1)}


def test_a_row_that_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "p.jsonl"
    write_predictions(path, make_rows(n=3))
    before = path.read_bytes()
    with pytest.raises(InputError, match="prediction 2 .*'answer'"):
        write_predictions(path, [make_rows()[0], {**make_rows()[1], "answer": "E"}])
    assert path.read_bytes() == before


def test_the_published_form_is_scored_by_marker_and_beginning(tmp_path):
    rows = [{"question": text, "prediction": "B. 是的", "answer": ["B", "C"]} for text in PUBLISHED.values()]
    rows[1]["answer"] = "C. 12"
    rows[2] |= {"prediction": "C", "answer": "C. 手机"}  # shorter than the gold answer: wrong
    rows[3] |= {"prediction": " B", "answer": "B"}  # does not start with it: wrong
    path = tmp_path / "published.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    entry = score_files([path], seed=0)["published"]
    assert {name: cell["accuracy"] for name, cell in entry["subtasks"].items()} == {
        **dict.fromkeys(SUBTASKS, 100.0),
        **dict.fromkeys(("mf", "ip", "ap"), 0.0),
    }
    assert entry["overall"]["accuracy"] == pytest.approx(400 / 7, abs=1e-4)
    assert (entry["unit"], entry["rule"]) == ("question", "starts-with")
    assert "avg_tokens" not in entry


@pytest.mark.parametrize("subtask, question", PUBLISHED.items())
def test_subtask_is_told_by_its_marker(subtask, question):
    assert detect_subtask(question) == subtask


def test_markers_are_tried_in_the_published_order():
    assert detect_subtask("用户第3次（从1开始计数）浏览的商品…该类目的商品有多少个？") == "df"
    assert detect_subtask("用户下一个可能点击的商品的标题是什么，用户下一个可能点击的商品的品牌") == "ip"
    with pytest.raises(InputError, match="What next"):
        detect_subtask("What next?")


def test_rules_differ_in_what_they_read():
    row = {**make_rows(n=1)[0], "answer": "A", "prediction": "A", "text": "B) no"}
    assert is_correct([row], "letter").tolist() == [True]
    assert is_correct([row], "starts-with").tolist() == [False]
    assert is_correct([{**row, "prediction": "B", "text": "A) yes"}], "starts-with").tolist() == [True]
    del row["text"]
    assert is_correct([row], "starts-with").tolist() == [True]
    with pytest.raises(InputError, match="fuzzy"):
        is_correct([row], "fuzzy")


def test_compare_pairs_by_id_whatever_the_order():
    a, b = make_rows(1, right=0.7), make_rows(2, right=0.4)
    found = compare(a, list(reversed(b)), scope="interest_perception", seed=0)
    asked = [i for i, row in enumerate(a) if row["subtask"] in ("li", "si", "it")]
    expected = paired_difference(
        is_correct([a[i] for i in asked]),
        is_correct([b[i] for i in asked]),
        np.array([a[i]["user"] for i in asked]),
        seed=0,
    )
    assert found["difference"] == pytest.approx(expected.difference, abs=1e-4)
    assert found["ci95"] == pytest.approx(list(expected.ci95), abs=1e-4)
    assert (found["p_value"], found["n"], found["scope"]) == (expected.p_value, 90, "interest_perception")


def test_compare_says_how_many_users_and_what_it_could_detect():
    found = compare(make_rows(1), make_rows(2), scope="df", seed=0)
    assert found["users"] == len({row["user"] for row in make_rows() if row["subtask"] == "df"})
    assert 0 < found["detectable"] < 100
    assert compare(make_rows(1), make_rows(1), seed=0)["detectable"] is None


def test_best_methods_are_named_by_scope():
    good, poor = make_rows(1, right=0.9), make_rows(2, right=0.2)
    found = best_methods({"poor": poor, "good": list(reversed(good)), "same": poor}, seed=0)
    assert found["overall"] == found["interest_perception"] == "good"
    assert best_methods({"poor": poor, "same": poor}, seed=0) == {}
    with pytest.raises(InputError, match="answered by one"):
        best_methods({"good": good, "short": poor[:-1]}, seed=0)


@pytest.mark.parametrize("field, value", [("note", float("nan")), ("text", "\ud800"), ("tokens", 10**400)])
def test_what_json_cannot_hold_is_refused_in_a_sentence(tmp_path, field, value):
    with pytest.raises(InputError, match="prediction 1 for"):
        write_predictions(tmp_path / "p.jsonl", [{**GOOD, field: value}])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda rows: rows[:-1], "Question 209 was answered by one"),
        (lambda rows: [{**rows[0], "answer": "D"}, *rows[1:]], "Question 0 has another 'answer'"),
        (lambda rows: [{k: v for k, v in rows[0].items() if k != "id"}, *rows[1:]], "'id'"),
    ],
)
def test_compare_refuses_different_questions(change, match):
    with pytest.raises(InputError, match=match):
        compare(make_rows(), change(make_rows()), seed=0)


def test_compare_refuses_an_unknown_or_empty_scope():
    with pytest.raises(InputError, match="'xy' is no task"):
        compare(make_rows(), make_rows(), scope="xy", seed=0)
    only_df = [row for row in make_rows() if row["subtask"] == "df"]
    with pytest.raises(InputError, match="No question belongs to 'it'"):
        compare(only_df, only_df, scope="it", seed=0)


GOOD = make_rows(n=1)[0]
BROKEN = {
    "not JSON": (b"{'id': 1}", "not valid JSON"),
    "not UTF-8": (b'{"id": 1, "user": "\xff"}', "not valid JSON"),
    "NaN": (json.dumps({**GOOD, "logits": [1.0, float("nan"), 0, 0]}).encode(), "not valid JSON"),
    "a list": (b"[1, 2]", "holds list"),
    "no answer": (
        json.dumps({k: v for k, v in GOOD.items() if k != "answer"}).encode(),
        "'answer' must be one of A, B, C, D, but is missing",
    ),
    "neither form": (b'{"prediction": "A", "answer": "A"}', "'id' must be a whole number, but is missing"),
    "subtask": (json.dumps({**GOOD, "subtask": "dff"}).encode(), "'subtask' must be one of df, mf"),
    "letter": (json.dumps({**GOOD, "answer": "AB"}).encode(), "'answer' must be one of A"),
    "prediction": (json.dumps({**GOOD, "prediction": 2}).encode(), "'prediction' must be a text, but is 2"),
    "text": (json.dumps({**GOOD, "text": None}).encode(), "'text' must be a text, but is null"),
    "user": (json.dumps({**GOOD, "user": None}).encode(), "'user' must be"),
    "id": (json.dumps({**GOOD, "id": "7"}).encode(), "'id' must be"),
    "logits": (json.dumps({**GOOD, "logits": [1, 2, 3]}).encode(), "'logits' must be four"),
    "tokens": (json.dumps({**GOOD, "tokens": -1}).encode(), "'tokens' must be"),
    "twice": (json.dumps(GOOD).encode(), "question 0 stands on line 1 already"),
    "gold": (json.dumps({"question": PUBLISHED["df"], "prediction": "A", "answer": []}).encode(), "'answer' must be"),
    "empty gold": (json.dumps({"question": PUBLISHED["df"], "prediction": "A", "answer": ""}).encode(), "'answer'"),
    "marker": (json.dumps({"question": "What?", "prediction": "A", "answer": "A"}).encode(), "No sub-task's marker"),
}


@pytest.mark.parametrize("line, match", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_row_is_named_by_file_and_line(tmp_path, line, match):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(InputError, match=match) as caught:
        read_predictions(path)
    assert f"{path}, line 3" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_file_is_named_as_such_wherever_it_is_cut(tmp_path):
    path = tmp_path / "cut.jsonl"
    write_predictions(path, make_rows(n=3))
    whole = path.read_bytes()
    second, third = (i + 1 for i, byte in enumerate(whole[:-1]) if byte == ord("\n"))
    for end in range(second + 1, third - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="line 2 is cut short"):
            read_predictions(path)


def test_missing_and_empty_files_and_no_rows(tmp_path):
    with pytest.raises(InputError, match="nowhere.jsonl"):
        read_predictions(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no predictions"):
        read_predictions(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="no predictions"):
        score([], seed=0)


def test_a_file_may_hold_several_methods_but_not_a_method_of_another_file(tmp_path):
    both = tmp_path / "both.jsonl"
    other = [{**row, "method": "trm++"} for row in make_rows(4)]
    write_predictions(both, [*make_rows(), *other])
    assert score_files([both], seed=0) == {"hstu": score(make_rows(), seed=0), "trm++": score(other, seed=0)}
    write_predictions(tmp_path / "again.jsonl", make_rows())
    with pytest.raises(InputError, match="again.jsonl and .*both.jsonl both hold the method 'hstu'"):
        score_files([both, tmp_path / "again.jsonl"], seed=0)
