"""Which candidates become questions: evenly over users, none twice, right answers of every rank equally often."""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from uqabench.questions.core.context import ACCEPTED, REASONS, Context, Records, empty_records
from uqabench.questions.core.entries import attempts_of
from uqabench.questions.declaration import OPTIONS, Family
from uqabench.questions.kinds import FAMILIES, pooled
from uqabench.settings.questions import QuestionConfig

BATCH = 12
BLOCK = 4096


@dataclass(frozen=True)
class Candidate:
    """One acceptable question: row `row` of `records`, with what the choice depends on."""

    records: Records
    row: int
    cut: int
    key: tuple[int, ...]
    group: int
    ranks: tuple[int, int]
    single: bool


class Selection:
    """Chooses questions of one family among candidates that are made when needed.

    Users take turns: nobody gets a question before everyone else has had the chance of as many. Within a group a
    candidate is taken while the rank of its right answer is among the least frequent so far, so that "take the most
    frequent (the largest, the most popular) option" is right for one question in four. When all attempts at the main
    cuts are used up, the extra cuts are opened. When those are, v1 loosens the balance, step by step, and counts what
    it takes from then on; v2 leaves out what is not in balance.
    """

    def __init__(
        self,
        context: Context,
        family: Family,
        users: np.ndarray,
        cuts: np.ndarray,
        config: QuestionConfig,
        pool: Executor,
        workers: int,
    ) -> None:
        """users (n,) in the order in which they take turns; cuts int32 (n, cuts_per_user + extra_cuts), -1: none."""
        self.workers = workers
        self.context, self.family, self.users, self.cuts, self.pool = context, family, users, cuts, pool
        self.stream = FAMILIES.index(family)
        families = pooled(config.version)
        self.answers = families.index(family) if family in families else 0
        self.strict = config.version != "v1"
        self.per_cut = config.max_attempts
        self.main = (cuts[:, : config.cuts_per_user] >= 0).sum(axis=1)
        self.extra_at = config.cuts_per_user
        self.limit = self.main * self.per_cut
        self.used = np.zeros(len(users), np.int64)
        self.waiting: dict[int, list[Candidate]] = defaultdict(list)
        self.asked: set[tuple[int, tuple[int, ...]]] = set()
        # Lists, not arrays: they are read a million times, four numbers at a time.
        self.ranks: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([0] * OPTIONS, [0] * OPTIONS))
        self.taken: list[tuple[int, Candidate]] = []
        self.share = np.zeros(len(users), np.int64)
        self.single = self.loose = self.candidates = 0
        self.outcomes = np.zeros(len(REASONS), np.int64)

    def run(self, wanted: int) -> int:
        """Choose `wanted` questions or as many as there are; returns the index of the user whose turn is next."""
        self.wanted = wanted
        limit = self.family.single_limit
        self.single_limit = wanted if limit is None else int(limit * wanted)
        all_cuts = (self.cuts >= 0).sum(axis=1) * self.per_cut
        slack = 1
        while True:
            moved, turn = self._round(slack)
            if len(self.taken) == wanted:
                return turn
            if not moved and (self.limit < all_cuts).any():
                self.limit = all_cuts
            elif not moved:
                if self.strict or slack > wanted:
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
        for index, candidate in enumerate(waiting):
            frequencies, popularities = self.ranks[candidate.group]
            first, second = candidate.ranks
            if frequencies[first] - min(frequencies) >= slack or popularities[second] - min(popularities) > slack:
                continue
            if (user, candidate.key) in self.asked or (candidate.single and self.single >= self.single_limit):
                continue
            del waiting[index]
            self.asked.add((user, candidate.key))
            frequencies[first] += 1
            popularities[second] += 1
            self.single += candidate.single
            self.loose += slack > 1
            self.share[user] += 1
            self.taken.append((user, candidate))
            return True
        return False

    def _refill(self, users: list[int]) -> None:
        """Try BATCH more candidates for each of these users, given by their index in `self.users`."""
        chosen = np.array([user for user in users if self.used[user] < self.limit[user]], np.int64)
        if len(chosen) == 0:
            return
        attempts = (self.used[chosen, None] + np.arange(BATCH)).ravel()
        owners = np.repeat(chosen, BATCH)
        keep = attempts < self.limit[owners]
        owners, attempts = owners[keep], attempts[keep]
        self.used[chosen] = np.minimum(self.used[chosen] + BATCH, self.limit[chosen])
        cuts = self._cuts_of(owners, attempts)
        records = self._attempt(self.users[owners], cuts, attempts)
        self.candidates += len(owners)
        self.outcomes += np.bincount(records.status, minlength=len(REASONS))
        self._add(records, owners, cuts)

    def _cuts_of(self, owners: np.ndarray, attempts: np.ndarray) -> np.ndarray:
        """The main cuts in turns until their attempts are used up, then one extra cut after the other.

        Where the turns begin differs by user and family, so that none is about early histories alone.
        """
        main = self.main[owners]
        beyond = attempts - main * self.per_cut
        column = np.where(
            beyond < 0, (attempts + self.stream + self.users[owners]) % main, self.extra_at + beyond // self.per_cut
        )
        return self.cuts[owners, column].astype(np.int64)

    def _attempt(self, users: np.ndarray, cuts: np.ndarray, attempts: np.ndarray) -> Records:
        """Candidates in threads: they are independent, so how they are shared out changes nothing."""
        make = attempts_of(self.family)
        records = empty_records(len(users))
        workers = self.workers if len(users) >= 1024 else 1
        bounds = np.linspace(0, len(users), workers + 1).astype(int)
        jobs = []
        for lo, hi in zip(bounds[:-1], bounds[1:], strict=True):
            part = Records(*(column[lo:hi] for column in records))
            given = (self.context, self.stream + 1, self.answers, users[lo:hi], cuts[lo:hi], attempts[lo:hi], part)
            jobs.append(self.pool.submit(make, *given))
        for job in jobs:
            job.result()
        return records

    def _add(self, records: Records, owners: np.ndarray, cuts: np.ndarray) -> None:
        """Let the acceptable candidates wait for their owners' turns."""
        rows = np.flatnonzero(records.status == ACCEPTED)
        keys = np.column_stack([cuts[rows], records.kind[rows], records.attribute[rows], records.params[rows]])
        single = np.zeros(len(rows), bool)
        if self.family.single_limit is not None:
            single = records.lengths[rows, records.answer[rows]] == 1
        columns = (owners[rows], rows, cuts[rows], keys, records.group[rows], records.ranks[rows], single)
        for owner, row, cut, key, group, ranks, one in zip(*(column.tolist() for column in columns), strict=True):
            self.waiting[owner].append(Candidate(records, row, cut, tuple(key), group, tuple(ranks), one))

    def kind_of(self, candidate: Candidate) -> str:
        """Name of a candidate's kind."""
        return self.family.kinds[candidate.records.kind[candidate.row]].name

    def by_kind(self) -> dict[str, int]:
        """Questions taken, by the name of their kind."""
        return dict(Counter(self.kind_of(candidate) for _, candidate in self.taken))

    def out_of_balance(self) -> int:
        """How many more questions there were but for the balance."""
        keys = {
            (user, candidate.key)
            for user, waiting in self.waiting.items()
            for candidate in waiting
            if not candidate.single or self.single < self.single_limit
        }
        return len(keys - self.asked)

    def discarded(self) -> dict[str, int]:
        """Candidates by the reason for which they came to nothing."""
        return {name: int(n) for name, n in zip(REASONS[1:], self.outcomes[1:], strict=True) if n}
