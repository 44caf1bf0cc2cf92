"""Which candidates become questions: evenly over users, none twice, right answers at every place equally often."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from uqabench.questions.core.context import ACCEPTED, REASONS, Context, Records, empty_records
from uqabench.questions.core.entries import run_attempts
from uqabench.questions.kinds import IT_PATH, OPTIONS
from uqabench.settings.questions import QuestionConfig

BATCH = 12
BLOCK = 4096
NO_CHANGE_LIMIT = 0.1


@dataclass(frozen=True)
class Candidate:
    """One acceptable question: row `row` of `records`, with what the choice depends on."""

    records: Records
    row: int
    cut: int
    key: tuple[int, ...]
    group: int
    levels: tuple[int, int]
    unchanged: bool


class Selection:
    """Chooses questions of one sub-task among candidates that are made when needed.

    Users take turns: nobody gets a question before everyone else has had the chance of as many. Within a group a
    candidate is taken while its right answer's place is among the least frequent so far, so that "take the most
    frequent (the largest, the most popular) option" is right for one question in four. When all attempts at the main
    cuts are used up, the extra cuts are opened; when those are, the balance is loosened, step by step, and what was
    taken loosely counted.
    """

    def __init__(
        self,
        context: Context,
        subtask: int,
        users: np.ndarray,
        cuts: np.ndarray,
        config: QuestionConfig,
        pool: Executor,
        workers: int,
    ) -> None:
        """users (n,) in the order in which they take turns; cuts int32 (n, cuts_per_user + extra_cuts), -1: none."""
        self.workers = workers
        self.context, self.subtask, self.users, self.cuts, self.pool = context, subtask, users, cuts, pool
        self.per_cut = config.max_attempts
        self.main = (cuts[:, : config.cuts_per_user] >= 0).sum(axis=1)
        self.extra_at = config.cuts_per_user
        self.limit = self.main * self.per_cut
        self.used = np.zeros(len(users), np.int64)
        self.waiting: dict[int, list[Candidate]] = defaultdict(list)
        self.asked: set[tuple[int, tuple[int, ...]]] = set()
        self.levels: dict[int, np.ndarray] = defaultdict(lambda: np.zeros((2, OPTIONS), np.int64))
        self.taken: list[tuple[int, Candidate]] = []
        self.share = np.zeros(len(users), np.int64)
        self.unchanged = self.loose = self.candidates = 0
        self.outcomes = np.zeros(len(REASONS), np.int64)

    def run(self, wanted: int) -> int:
        """Choose `wanted` questions or as many as there are; returns the index of the user whose turn is next."""
        self.wanted = wanted
        self.unchanged_limit = int(NO_CHANGE_LIMIT * wanted)
        all_cuts = (self.cuts >= 0).sum(axis=1) * self.per_cut
        slack = 1
        while True:
            moved, turn = self._round(slack)
            if len(self.taken) == wanted:
                return turn
            if not moved and (self.limit < all_cuts).any():
                self.limit = all_cuts
            elif not moved:
                if slack > wanted:
                    return 0
                slack *= 2

    def _round(self, slack: int) -> tuple[bool, int]:
        """One more question for each user who has the fewest of those that can have one."""
        before = len(self.taken)
        size = min(BLOCK, max(64, self.wanted - before))
        for first in range(0, len(self.users), size):
            pending = list(range(first, min(first + size, len(self.users))))
            while pending:
                self._refill([user for user in pending if not self.waiting[user]])
                still = []
                for user in pending:
                    if self._take(user, slack):
                        if len(self.taken) == self.wanted:
                            return True, (user + 1) % len(self.users)
                    elif self.used[user] < self.limit[user]:
                        still.append(user)
                self._refill(still)
                pending = still
        return len(self.taken) > before, 0

    def _take(self, user: int, slack: int) -> bool:
        """Give `user` the first waiting candidate that fits."""
        waiting = self.waiting[user]
        for place, candidate in enumerate(waiting):
            levels = self.levels[candidate.group]
            first, second = candidate.levels
            if levels[0, first] - levels[0].min() >= slack or levels[1, second] - levels[1].min() > slack:
                continue
            if (user, candidate.key) in self.asked or (candidate.unchanged and self.unchanged >= self.unchanged_limit):
                continue
            del waiting[place]
            self.asked.add((user, candidate.key))
            levels[(0, 1), (first, second)] += 1
            self.unchanged += candidate.unchanged
            self.loose += slack > 1
            self.share[user] += 1
            self.taken.append((user, candidate))
            return True
        return False

    def _refill(self, places: list[int]) -> None:
        """Try BATCH more candidates for each of these users."""
        chosen = np.array([user for user in places if self.used[user] < self.limit[user]], np.int64)
        if len(chosen) == 0:
            return
        attempts = (self.used[chosen, None] + np.arange(BATCH)).ravel()
        place = np.repeat(chosen, BATCH)
        keep = attempts < self.limit[place]
        place, attempts = place[keep], attempts[keep]
        self.used[chosen] = np.minimum(self.used[chosen] + BATCH, self.limit[chosen])
        cuts = self._cuts_of(place, attempts)
        records = self._attempt(self.users[place], cuts, attempts)
        self.candidates += len(place)
        self.outcomes += np.bincount(records.status, minlength=len(REASONS))
        for row in np.flatnonzero(records.status == ACCEPTED):
            self._add(int(place[row]), records, int(row), int(cuts[row]))

    def _cuts_of(self, place: np.ndarray, attempts: np.ndarray) -> np.ndarray:
        """The main cuts in turns until their attempts are used up, then one extra cut after the other.

        Where the turns begin differs by user and sub-task, so that none is about early histories alone.
        """
        main = self.main[place]
        beyond = attempts - main * self.per_cut
        column = np.where(
            beyond < 0, (attempts + self.subtask + self.users[place]) % main, self.extra_at + beyond // self.per_cut
        )
        return self.cuts[place, column].astype(np.int64)

    def _attempt(self, users: np.ndarray, cuts: np.ndarray, attempts: np.ndarray) -> Records:
        """Candidates in threads: each is its own, so how they are shared out changes nothing."""
        records = empty_records(len(users))
        workers = self.workers if len(users) >= 1024 else 1
        bounds = np.linspace(0, len(users), workers + 1).astype(int)
        jobs = []
        for lo, hi in zip(bounds[:-1], bounds[1:], strict=True):
            part = Records(*(column[lo:hi] for column in records))
            job = (run_attempts, self.context, self.subtask, users[lo:hi], cuts[lo:hi], attempts[lo:hi], part)
            jobs.append(self.pool.submit(*job))
        for job in jobs:
            job.result()
        return records

    def _add(self, user: int, records: Records, row: int, cut: int) -> None:
        kind = int(records.kind[row])
        key = (cut, kind, int(records.attribute[row]), *records.params[row].tolist())
        right = records.lengths[row, records.answer[row]]
        self.waiting[user].append(
            Candidate(
                records=records,
                row=row,
                cut=cut,
                key=key,
                group=int(records.group[row]),
                levels=(int(records.levels[row, 0]), int(records.levels[row, 1])),
                unchanged=kind == IT_PATH and right == 1,
            )
        )

    def discarded(self) -> dict[str, int]:
        """Candidates by the reason for which they came to nothing."""
        return {name: int(n) for name, n in zip(REASONS[1:], self.outcomes[1:], strict=True) if n}
