"""What came of generating questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class QuestionReport:
    """What generation did, by sub-task.

    counts: questions made. wanted: questions that the mix asks for. left_out: sub-tasks of the mix for which the data
    set has no attributes. candidates: tried. discarded: candidates by reason. unbalanced: questions taken although the
    rank of the right answer among its options was already more frequent than others (few users, few values).
    attributes: questions by attribute. kinds: questions by the name of their kind. users and histories: how many
    different ones the questions are about. notes: what the mix did not get and why, a sentence each.
    """

    counts: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    candidates: dict[str, int] = field(default_factory=dict)
    discarded: dict[str, dict[str, int]] = field(default_factory=dict)
    unbalanced: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    users: int = 0
    histories: int = 0
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))
