"""What came of generating questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class QuestionReport:
    """What generation did, by sub-task.

    counts: questions made. left_out: sub-tasks of the mix that the data set has no attributes for. candidates: tried.
    discarded: candidates by reason. unbalanced: questions taken although the right answer's place among its options
    was already more frequent than others (few users, few values). attributes: questions by attribute. users and
    histories: how many different ones the questions are about.
    """

    counts: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    candidates: dict[str, int] = field(default_factory=dict)
    discarded: dict[str, dict[str, int]] = field(default_factory=dict)
    unbalanced: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    users: int = 0
    histories: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """For the terminal."""
        total = sum(self.counts.values())
        out = [f"{total} questions about {self.users} users and {self.histories} histories"]
        if self.left_out:
            out.append(f"no attributes for {', '.join(self.left_out)}: the mix is renormalised")
        for name, count in self.counts.items():
            reasons = ", ".join(f"{reason} {n}" for reason, n in self.discarded[name].items())
            line = f"{name}: {count} ({100 * count / total:.1f} %) from {self.candidates[name]} candidates"
            out.append(line + (f"; discarded: {reasons}" if reasons else ""))
            if self.unbalanced[name]:
                out.append(f"{name}: {self.unbalanced[name]} taken out of balance, for want of others")
        return out
