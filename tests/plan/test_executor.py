"""The executor: order, sharing by content, reuse, failures kept apart."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uqabench.errors import InputError, RunError
from uqabench.plan.dry_run import summary, survey
from uqabench.plan.executor import execute
from uqabench.plan.node import Node, in_order


def test_nodes_are_built_after_their_inputs_and_once(node, tmp_path):
    calls: list[str] = []
    a = node("a", calls=calls)
    b, c = node("b", {"x": a}, calls=calls), node("c", {"x": a}, calls=calls)
    twin = node("a", calls=calls)  # another object, equal by content
    d = node("d", {"b": b, "c": c, "twin": twin}, calls=calls)
    outcome = execute([d, b], tmp_path, progress=False)
    assert calls == ["a", "b", "c", "d"]
    assert (outcome.of(d).path / "text").read_text() == "d(b(a()) c(a()) a())"
    again = execute([d], tmp_path, progress=False)
    assert len(calls) == 4 and again.reused == {each.key for each in (a, b, c, d)}


def test_a_key_tells_settings_and_all_that_stands_before(node):
    base, other = node("a"), node("b")
    assert node("x", {"in": base}).key == node("x", {"in": node("a")}).key
    assert len({node("x", {"in": base}).key, node("x", {"in": other}).key, node("x").key, node("y").key}) == 4


def test_a_failed_node_takes_what_depends_on_it_and_what_only_that_needed(node, tmp_path):
    calls: list[str] = []
    broken = node("broken", fails=InputError("no such thing."), calls=calls)
    useless = node("useless", calls=calls)
    lost = node("lost", {"x": broken, "y": useless}, calls=calls)
    fine = node("fine", {"x": node("root", calls=calls)}, calls=calls)
    outcome = execute([lost, fine], tmp_path, progress=False)
    assert calls == ["broken", "root", "fine"]
    assert fine.key in outcome.made and str(outcome.cause(lost)) == "no such thing."
    with pytest.raises(InputError, match="no such thing"):
        outcome.of(lost)
    assert sorted(path.name[:4] for path in (tmp_path / "stage").iterdir()) == ["fine", "root"]


def test_what_any_stage_may_raise_is_one_sentence(node, tmp_path):
    broken = node("broken", fails=IndexError("index 7 is out of bounds\nfor axis 0"))
    outcome = execute([broken], tmp_path, progress=False)
    assert str(outcome.cause(broken)) == "IndexError: index 7 is out of bounds for axis 0"
    assert isinstance(outcome.cause(broken), RunError)
    memory = node("memory", fails=MemoryError())
    assert "not enough memory" in str(execute([memory], tmp_path, progress=False).cause(memory))


@pytest.mark.parametrize("how", ["strict", "essential", "full disk"])
def test_errors_that_stop_everything(node, tmp_path, how):
    calls: list[str] = []
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if how == "full disk" else InputError("broken.")
    broken, fine = node("broken", fails=error, calls=calls), node("fine", calls=calls)
    with pytest.raises((InputError, RunError), match="disk is full" if how == "full disk" else "broken"):
        execute(
            [broken, fine], tmp_path, progress=False, strict=how == "strict",
            essential=[broken] if how == "essential" else [],
        )  # fmt: skip
    assert calls == ["broken"]


def test_essential_and_early_nodes_come_first(node, tmp_path):
    calls: list[str] = []
    shared, first, second = (node(name, calls=calls) for name in ("shared", "first", "second"))
    targets = [node("x", {"a": first}, calls=calls), node("y", {"a": second}, calls=calls)]
    execute(targets, tmp_path, essential=[shared], early=[second, first], progress=False)
    assert calls == ["shared", "second", "first", "x", "y"]


def test_a_dry_run_says_what_an_execution_would_do_and_writes_nothing(node, tmp_path):
    a = node("a", seconds=7.0)
    b = node("b", {"x": a})
    execute([a], tmp_path, progress=False)
    before = sorted(tmp_path.rglob("*"))
    rows = survey([b], tmp_path)
    assert [(row["node"], row["action"]) for row in rows] == [("stage a", "reuse"), ("stage b", "build")]
    assert sorted(tmp_path.rglob("*")) == before
    assert summary(rows).startswith("2 nodes: 1 finished, 1 to build, about ")
    other = node("c", {"x": node("a2")})
    assert [row["action"] for row in survey([other], tmp_path)] == ["build", "build"]


def test_recorded_seconds_are_the_estimate(node, tmp_path):
    a = node("a", seconds=7.0)
    execute([a], tmp_path, progress=False)
    (a.path(tmp_path) / "manifest.json").unlink()  # the folder is there, its result is not
    (row,) = survey([a], tmp_path)
    assert (row["action"], row["seconds"], row["estimate"]) == ("build", 7.0, "recorded")


@given(st.lists(st.sets(st.integers(0, 7), max_size=4), min_size=1, max_size=8))
def test_the_order_respects_every_edge(edges):
    """Random acyclic graphs: node i may need nodes below i."""
    nodes: list[Node] = []
    for i, needed in enumerate(edges):
        inputs = {str(j): nodes[j] for j in sorted(needed) if j < i}
        nodes.append(Node("stage", str(i), {"i": i}, inputs, open=lambda made: None))
    order = in_order(nodes[::-1])
    position = {each.key: index for index, each in enumerate(order)}
    assert len(order) == len(nodes)
    for each in nodes:
        assert all(position[needed.key] < position[each.key] for needed in each.inputs.values())


def test_nodes_that_share_work_are_built_one_after_another(node, tmp_path):
    calls: list[str] = []
    root = node("root", calls=calls)
    wide, narrow = (node(label, {"x": root}, calls=calls, beside="pass") for label in ("wide", "narrow"))
    other = node("other", {"x": root}, calls=calls, beside="another pass")
    last = node("last", {"x": wide, "y": other}, calls=calls)
    execute([last, narrow], tmp_path, progress=False)
    assert calls == ["root", "wide", "narrow", "other", "last"]


def test_work_that_is_shared_is_estimated_once(node, tmp_path):
    nodes = [node(label, stage="states", beside=beside) for label, beside in (("a", "x"), ("b", "x"), ("c", "y"))]
    assert [row["seconds"] for row in survey(nodes, tmp_path)] == [4.0, 1.0, 4.0]
    execute(nodes[:1], tmp_path, progress=False)
    assert [row["seconds"] for row in survey(nodes, tmp_path)] == [0.0, 4.0, 4.0]
