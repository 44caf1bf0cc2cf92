"""Which candidates become questions: evenly over users, none twice, right answers of every rank equally often."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.answers import nothing_known
from uqabench.questions.core.context import REASONS, Context, empty_records, no_tallies
from uqabench.questions.core.entries import answers_ahead, choice_of
from uqabench.questions.declaration import Family
from uqabench.questions.kinds import FAMILIES, pooled
from uqabench.settings.questions import QuestionConfig


class Selection:
    """Chooses questions of one family among candidates that are made when needed.

    Users take turns: nobody gets a question before everyone else has had the chance of as many. Within a group a
    candidate is taken while the rank of its right answer is among the least frequent so far, so that "take the most
    frequent (the largest, the most popular) option" is right for one question in four. When all attempts at the main
    cuts are used up, the extra cuts are opened. When those are, v1 loosens the balance, step by step, and counts what
    it takes from then on; v2 leaves out what is not in balance.

    After `run`, `records` (`Records`), `cut` and `user` (int64) hold the questions chosen, in the order of the turns;
    a user is meant by its store index.
    """

    def __init__(
        self, context: Context, family: Family, users: np.ndarray, cuts: np.ndarray, config: QuestionConfig, wanted: int
    ) -> None:
        """users int64 (n,) in the order in which they take turns; cuts int32 (n, cuts_per_user + extra_cuts), -1:
        none; wanted: how many questions."""
        self.context, self.family = context, family
        self.users, self.cuts = np.ascontiguousarray(users), np.ascontiguousarray(cuts)
        self.per_cut, self.extra_at = config.max_attempts, config.cuts_per_user
        families = pooled(config.version)
        self.pool = families.index(family) if family in families else 0
        self.strict, self.wanted = config.version != "v1", wanted
        self.answers = nothing_known(*cuts.shape)
        self.outcomes = np.zeros(len(REASONS), np.int64)
        self.records, self.cut, self.user = empty_records(0), np.empty(0, np.int64), np.empty(0, np.int64)
        self.loose = self.left = 0

    @property
    def asks_most(self) -> bool:
        """Whether most users are going to be asked about, or tried, so that `look_ahead` is not in vain."""
        return self.family.right_answer is not None and 4 * self.wanted > len(self.users)

    def look_ahead(self) -> None:
        """Find the right answers at all main cuts, which another thread can do before `run`."""
        answers_ahead(self.family)(
            self.context, self.pool, self.users, self.cuts, self.extra_at, self._tallies(), self.answers
        )

    def run(self, start: int) -> int:
        """Choose the questions wanted or as many as there are. The user with index `start` is first; returns the index
        of the one whose turn is next."""
        wanted, limit = self.wanted, self.family.single_limit
        taken, cut, owner = empty_records(wanted), np.empty(wanted, np.int64), np.empty(wanted, np.int64)
        found, turn, self.loose, self.left = choice_of(self.family)(
            self.context, FAMILIES.index(self.family) + 1, self.pool, self.users, self.cuts, start,
            self.extra_at, self.per_cut, wanted, -1 if limit is None else int(limit * wanted), self.strict,
            self.answers, self._tallies(), self.outcomes, taken, cut, owner,
        )  # fmt: skip
        self.records = type(taken)(*(column[:found] for column in taken))
        self.cut, self.user = cut[:found], self.users[owner[:found]]
        return turn

    def _tallies(self) -> np.ndarray:
        return no_tallies(int(np.diff(self.context.base).max()))

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def candidates(self) -> int:
        """How many were made."""
        return int(self.outcomes.sum())

    def by_kind(self) -> dict[str, int]:
        """Questions taken, by the name of their kind, the first one taken first."""
        kinds, first, counts = np.unique(self.records.kind, return_index=True, return_counts=True)
        return {self.family.kinds[kinds[i]].name: int(counts[i]) for i in np.argsort(first)}

    def out_of_balance(self) -> int:
        """How many more questions there were but for the balance (where it is never loosened)."""
        return self.left

    def discarded(self) -> dict[str, int]:
        """Candidates by the reason for which they came to nothing."""
        return {name: int(n) for name, n in zip(REASONS[1:], self.outcomes[1:], strict=True) if n}
