"""Settings of the questions: how many, about what, and with how long a history."""

from __future__ import annotations

from uqabench.errors import InputError
from uqabench.settings.schema import MAX_LENGTH, MAX_SEED, section, setting
from uqabench.vocabulary import SUBTASKS

PAPER_MIX = {"df": 1508, "mf": 128, "ip": 1164, "ap": 1458, "li": 797, "si": 1373, "it": 764}
"""Questions by sub-task in the paper's 7,192, recovered from the averages of its Table 2."""


@section("questions")
class QuestionConfig:
    """Settings of question generation."""

    n_questions: int | None = setting(
        None, "how many in all, shared out by `mix`; null takes `mix` itself as counts", ge=1, le=10**9
    )
    mix: dict[str, float] = setting(
        default_factory=lambda: dict(PAPER_MIX), help="weight (or count) by sub-task; the paper's by default",
        ge=0, le=10**9,
    )  # fmt: skip
    history: int = setting(
        512, "N in items: a question is about the last N before its cut (follows `history_length`)", ge=4, le=MAX_LENGTH
    )
    min_history: int = setting(20, "the earliest cut, in items", ge=4, le=MAX_LENGTH)
    recent_window: int = setting(10, "the last items that short-term interest (si) is about", ge=1, le=MAX_LENGTH)
    cuts_per_user: int = setting(3, "into how many histories a user's questions are gathered", ge=1, le=MAX_LENGTH)
    extra_cuts: int = setting(
        16, "how many more cuts a sub-task may use for a user once those have nothing left to ask", ge=0, le=MAX_LENGTH
    )
    seed: int = setting(0, "seed of cuts, questions and options", ge=0, le=MAX_SEED)
    max_attempts: int = setting(
        32, "candidates tried for a user, a cut and a sub-task before that history is given up", ge=1, le=10**6
    )

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mix) - set(SUBTASKS))
        if unknown:
            raise ValueError(f"mix names no sub-task '{unknown[0][:40]}': choose from {', '.join(SUBTASKS)}.")
        for name, weight in self.mix.items():
            if self.n_questions is None and weight != int(weight):
                raise ValueError(f"mix.{name} is {weight}: without n_questions the mix holds counts, whole numbers.")
        if sum(self.mix.values()) == 0:
            raise ValueError("mix asks for no questions: give at least one sub-task a weight above zero.")
        if self.recent_window > self.history:
            raise ValueError(f"recent_window ({self.recent_window}) is longer than history ({self.history}): lower it.")

    def counts(self, possible: tuple[str, ...]) -> dict[str, int]:
        """Questions by sub-task when only `possible` ones can be asked: the mix renormalised, to the exact total."""
        weights = {name: self.mix[name] for name in SUBTASKS if self.mix.get(name, 0) > 0}
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


@section("questions")
class QuestionsConfig:
    """The question sets of a run."""

    train: QuestionConfig = setting(default_factory=QuestionConfig)
    evaluation: QuestionConfig = setting(default_factory=QuestionConfig)
    templates: str | None = setting(None, "a file of phrasings of your own, laid over the built-in ones")
