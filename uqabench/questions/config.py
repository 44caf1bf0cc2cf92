"""What to generate, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from uqabench.errors import InputError
from uqabench.vocabulary import SUBTASKS

PAPER_MIX = {"df": 1508, "mf": 128, "ip": 1164, "ap": 1458, "li": 797, "si": 1373, "it": 764}
"""Questions by sub-task in the paper's 7,192, recovered from the averages of its Table 2."""


@dataclass(frozen=True)
class QuestionConfig:
    """Settings of question generation.

    n_questions: how many in all, shared out by the mix; None takes the mix itself as counts.
    mix: weight (or count) by sub-task, as a demand: a sub-task that cannot reach its count is an error.
    default_mix: the same where `mix` is None, as a wish: a sub-task gets what the data carry, down to none, and the
    report says so; the paper's mix by default.
    history: N; a question is about h = s[max(0, cut - N):cut]. min_history: the earliest cut.
    recent_window: the last items of h that short-term interest (si) is about.
    cuts_per_user: into how many histories a user's questions are gathered. extra_cuts: how many more a sub-task may use
    for a user once those have nothing left to ask.
    max_attempts: candidates tried for a user, a cut and a sub-task before that history is given up.
    """

    n_questions: int | None = None
    mix: dict[str, float] | None = None
    default_mix: dict[str, float] = field(default_factory=lambda: dict(PAPER_MIX))
    history: int = 512
    min_history: int = 20
    recent_window: int = 10
    cuts_per_user: int = 3
    extra_cuts: int = 16
    seed: int = 0
    max_attempts: int = 32

    @property
    def weights(self) -> dict[str, float]:
        """The mix that holds, in the order of SUBTASKS, without sub-tasks of weight zero."""
        mix = self.default_mix if self.mix is None else self.mix
        return {name: mix[name] for name in SUBTASKS if mix.get(name, 0) > 0}

    def check(self) -> None:
        """Raise InputError naming the setting that makes no sense."""
        for label, mix in (("mix", self.mix or {}), ("default_mix", self.default_mix)):
            unknown = sorted(set(mix) - set(SUBTASKS))
            if unknown:
                raise InputError(f"{label} names no sub-task '{unknown[0]}': choose from {', '.join(SUBTASKS)}.")
            for name, weight in mix.items():
                if not 0 <= weight < float("inf"):
                    raise InputError(f"{label}.{name} is {weight}: give a weight of zero or more.")
                if self.n_questions is None and weight != int(weight):
                    raise InputError(
                        f"{label}.{name} is {weight}: without n_questions the mix holds counts, whole numbers."
                    )
        if not self.weights:
            label = "default_mix" if self.mix is None else "mix"
            raise InputError(f"{label} asks for no questions: give at least one sub-task a weight above zero.")
        least = {"history": 4, "min_history": 4, "recent_window": 1, "cuts_per_user": 1, "max_attempts": 1}
        least |= {"extra_cuts": 0, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least {bound}.")
        if self.recent_window > self.history:
            raise InputError(f"recent_window ({self.recent_window}) is longer than history ({self.history}).")
        if self.n_questions is not None and self.n_questions < 1:
            raise InputError(f"n_questions is {self.n_questions}: ask for at least one.")

    def counts(self, possible: tuple[str, ...]) -> dict[str, int]:
        """Questions by sub-task when only `possible` ones can be asked: the mix renormalised, to the exact total."""
        weights = self.weights
        total = int(sum(weights.values())) if self.n_questions is None else self.n_questions
        usable = {name: weight for name, weight in weights.items() if name in possible}
        if not usable:
            raise InputError(
                f"This data set lacks the attributes for {', '.join(weights)}: give other sub-tasks a weight in mix."
            )
        scale = total / sum(usable.values())
        counts = {name: int(weight * scale) for name, weight in usable.items()}
        by_remainder = sorted(usable, key=lambda name: counts[name] - usable[name] * scale)
        for name in by_remainder[: total - sum(counts.values())]:
            counts[name] += 1
        return {name: count for name, count in counts.items() if count > 0}


@dataclass
class QuestionReport:
    """What generation did, by sub-task.

    counts: questions made. wanted: questions that the mix asks for. left_out: sub-tasks of the mix for which the data
    set has no attributes. candidates: tried. discarded: candidates by reason. unbalanced: questions taken although the
    rank of the right answer among its options was already more frequent than others (few users, few values).
    attributes: questions by attribute. users and histories: how many different ones the questions are about. notes:
    what the mix did not get and why, a sentence each.
    """

    counts: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    candidates: dict[str, int] = field(default_factory=dict)
    discarded: dict[str, dict[str, int]] = field(default_factory=dict)
    unbalanced: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    users: int = 0
    histories: int = 0
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))
