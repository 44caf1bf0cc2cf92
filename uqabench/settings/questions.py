"""Settings of the questions: how many, about what, and with how long a history."""

from __future__ import annotations

from uqabench.errors import InputError
from uqabench.settings.schema import MAX_LENGTH, MAX_SEED, section, setting
from uqabench.vocabulary import DOMAINS, GIVEN_QUESTIONS, QUESTION_USERS, QUESTION_VERSIONS, SUBTASKS

_VERSIONS = (*QUESTION_VERSIONS, GIVEN_QUESTIONS)

PAPER_MIX = {"df": 1508, "mf": 128, "ip": 1164, "ap": 1458, "li": 797, "si": 1373, "it": 764}
"""Questions by sub-task in the paper's 7,192, recovered from the averages of its Table 2."""


MATCHED_SHARE = 0.1


@section("questions")
class QuestionConfig:
    """Settings of question generation."""

    version: str = setting("v1", "rules of the questions (follows `questions.version`)", choices=_VERSIONS)
    domain: str | None = setting(
        None, "what an interaction is, for the words of v2; null: what the data source is known for", choices=DOMAINS
    )
    n_questions: int | None = setting(
        None, "how many in all, shared out by the mix; null takes the mix itself as counts", ge=1, le=10**9
    )
    mix: dict[str, float] | None = setting(
        None, "weight (or count) by sub-task, as a demand: an error where the data cannot meet it", ge=0, le=10**9
    )
    default_mix: dict[str, float] = setting(
        default_factory=lambda: dict(PAPER_MIX), ge=0, le=10**9,
        help="the same where `mix` is null, as a wish: a sub-task gets what the data carry, down to none",
    )  # fmt: skip
    history: int = setting(
        512, "N in items: a question is about the last N before its cut (follows `history_length`)", ge=4, le=MAX_LENGTH
    )
    min_history: int = setting(20, "the earliest cut, in items", ge=4, le=MAX_LENGTH)
    matched_share: float = setting(
        MATCHED_SHARE,
        "v2: part of ip and ap asked at the level matched (follows `questions.matched_share`)",
        ge=0,
        le=1,
    )
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
        label = "default_mix" if self.mix is None else "mix"
        mix = self.default_mix if self.mix is None else self.mix
        unknown = sorted(set(mix) - set(SUBTASKS))
        if unknown:
            raise ValueError(f"{label} names no sub-task '{unknown[0][:40]}': choose from {', '.join(SUBTASKS)}.")
        for name, weight in mix.items():
            if self.n_questions is None and weight != int(weight):
                raise ValueError(
                    f"{label}.{name} is {weight}: without n_questions the mix holds counts, whole numbers."
                )
        if not self.weights:
            raise ValueError(f"{label} asks for no questions: give at least one sub-task a weight above zero.")
        if self.recent_window > self.history:
            raise ValueError(f"recent_window ({self.recent_window}) is longer than history ({self.history}): lower it.")

    @property
    def weights(self) -> dict[str, float]:
        """The mix that holds, in the order of SUBTASKS, without sub-tasks of weight zero."""
        mix = self.default_mix if self.mix is None else self.mix
        return {name: mix[name] for name in SUBTASKS if mix.get(name, 0) > 0}

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


@section("questions")
class QuestionsConfig:
    """The question sets of a run."""

    version: str = setting(
        "v1",
        "v1: as first published; v2: no order inside a basket, levels of ip and ap; official: those that came with the "
        "data",
        choices=_VERSIONS,
    )  # fmt: skip
    users: str = setting(
        "evaluation", "whom the questions that decide the score are about: choose settings on validation users",
        choices=QUESTION_USERS,
    )  # fmt: skip
    matched_share: float = setting(
        MATCHED_SHARE, "v2: part of ip and ap asked at the level matched, the rest natural", ge=0, le=1
    )
    train: QuestionConfig = setting(default_factory=QuestionConfig)
    evaluation: QuestionConfig = setting(default_factory=QuestionConfig)
    templates: str | None = setting(None, "a file of phrasings of your own, laid over the built-in ones")
