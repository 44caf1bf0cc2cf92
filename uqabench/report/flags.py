"""Marks on columns whose sub-task the judges object to, and the notes that say why."""

from __future__ import annotations

from collections.abc import Sequence

from uqabench.questions.scoring import SHORT_CUT
from uqabench.settings.results import Flag

MARKS = {"short-cut": "†", "no-headroom": "‡"}


def flagged(flags: Sequence[Flag]) -> dict[str, str]:
    """By scope, the marks behind its heading."""
    marks: dict[str, str] = {}
    for flag in flags:
        marks[flag["scope"]] = marks.get(flag["scope"], "") + MARKS[flag["flag"]]
    return marks


def flag_notes(flags: Sequence[Flag]) -> list[str]:
    """A sentence for each kind of flag that was raised, with what the judges score."""
    reasons = {
        "short-cut": f"options and question alone (No-history-model) give significantly more than {SHORT_CUT:.0f} %",
        "no-headroom": "with the history (History-model) no significantly better answers are learned than without it",
    }
    notes = []
    for kind, reason in reasons.items():
        found = [flag for flag in flags if flag["flag"] == kind]
        if found:
            shown = ", ".join(f"{_name(f['scope'])} {f['no_history']:.1f} and {f['history']:.1f}" for f in found)
            notes.append(f"{MARKS[kind]} {reason}: {shown} % without and with it.")
    return notes


def _name(scope: str) -> str:
    subtask, _, level = scope.partition(":")
    return f"{subtask.upper()} {level}".strip()
