"""Questions that came with the data: who is asked at which cut, the words, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic_core import from_json

from uqabench.data.arrow import map_arrow, view, write_arrow
from uqabench.data.official.ragged import rolling
from uqabench.errors import InputError
from uqabench.vocabulary import LETTERS, SUBTASK_MARKERS, SUBTASKS

GIVEN_FILES = {"train": "questions_train.arrow", "evaluation": "questions_evaluation.arrow"}
"""Files of a store that has questions of its own, by split."""
_PART = 2**22
_COLUMNS = {
    "user": pa.int32(), "cut": pa.int32(), "subtask": pa.int8(), "answer": pa.int8(), "text": pa.string()
}  # fmt: skip


@dataclass(frozen=True)
class GivenQuestions:
    """Q questions in words. user, cut int32 (Q,); subtask int8, index in SUBTASKS; answer int8 0..3, the letter that
    the published answer begins with; texts: the user's message of each, options included."""

    user: np.ndarray
    cut: np.ndarray
    subtask: np.ndarray
    answer: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.user)

    def save(self, path: Path) -> None:
        """Write one Arrow file."""
        columns = {name: np.asarray(getattr(self, name)) for name in ("user", "cut", "subtask", "answer")}
        write_arrow(
            path,
            {
                **{name: pa.array(values, _COLUMNS[name]) for name, values in columns.items()},
                "text": pa.array(self.texts, pa.string()),
            },
        )

    @classmethod
    def open(cls, folder: Path, split: str, lengths: np.ndarray) -> GivenQuestions:
        """The questions of a prepared folder; `lengths` (U,) are the store's. InputError where it has none."""
        path = folder / GIVEN_FILES[split]
        if not path.is_file():
            raise InputError(
                f"{folder} came without questions: set questions.version to v1 or v2, or prepare the source 'official'."
            )
        columns = map_arrow(path, _COLUMNS)
        found = cls(
            *(view(columns[name]) for name in ("user", "cut", "subtask", "answer")), columns["text"].to_pylist()
        )
        limits = (("user", 0, len(lengths)), ("subtask", 0, len(SUBTASKS)), ("answer", 0, len(LETTERS)))
        for name, low, high in limits:
            values = getattr(found, name)
            if ((values < low) | (values >= high)).any():
                raise InputError(f"{path}: column '{name}' holds values outside {low}..{high - 1}: prepare it again.")
        if ((found.cut < 1) | (found.cut > lengths[found.user])).any():
            raise InputError(f"{path}: column 'cut' leaves a user's sequence: prepare it again.")
        return found


def subtask_of(question: str) -> str | None:
    """Key of the sub-task whose marker comes first in the published order; None without any."""
    found = (key for key, markers in SUBTASK_MARKERS.items() if any(marker in question for marker in markers))
    return next(found, None)


def parse_text(text: str) -> tuple[str, str] | None:
    """(the user's message, the assistant's) of a published `text`; None where it is not that."""
    try:
        messages = from_json(text)
        by_role = {message["role"]: message["content"] for message in messages}
        question, answer = by_role["user"], by_role["assistant"]
    except (ValueError, TypeError, KeyError):
        return None
    return (question, answer) if isinstance(question, str) and isinstance(answer, str) else None


def letter_of(answer: str) -> int:
    """Index of the letter that an answer begins with; -1 for another beginning."""
    return LETTERS.index(answer[0]) if answer[:1] in LETTERS and answer[:1] else -1


class Histories:
    """Finds the user and the cut of a history by its content."""

    def __init__(self, items: np.ndarray, offsets: np.ndarray, split: np.ndarray) -> None:
        self.items, self.offsets, self.split = items, offsets, split
        self._hashes = np.zeros(len(items), np.uint64)
        rolling(items, offsets, self._hashes)

    def find(self, items: np.ndarray, offsets: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """(user, cut) int64 (Q,) of Q histories that begin a user's sequence; user -1 where no sequence begins so.

        Of several users the first of split `side` is taken, else the first. What the hashes find is compared in full.
        """
        hashes = np.zeros(len(items), np.uint64)
        rolling(items, offsets, hashes)
        wanted = hashes[offsets[1:] - 1]
        candidates = _places(self._hashes, np.unique(wanted))
        users = np.searchsorted(self.offsets, candidates, side="right") - 1
        order = np.lexsort((candidates, self.split[users] != side))
        first: dict[tuple[int, int], tuple[int, int]] = {}
        for row, user in zip(candidates[order].tolist(), users[order].tolist(), strict=True):
            cut = row + 1 - int(self.offsets[user])
            first.setdefault((int(self._hashes[row]), cut), (user, cut))
        found_users, cuts = np.full(len(wanted), -1, np.int64), np.zeros(len(wanted), np.int64)
        for i, (value, low, high) in enumerate(zip(wanted.tolist(), offsets[:-1], offsets[1:], strict=True)):
            user, cut = first.get((value, int(high - low)), (-1, 0))
            if user >= 0:
                start = self.offsets[user]
                if np.array_equal(self.items[start : start + cut], items[low:high]):
                    found_users[i], cuts[i] = user, cut
        return found_users, cuts


def _places(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64: where `values` are among `wanted`, which is sorted; a part at a time, for there are tens of millions."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(values) if len(wanted) else 0, _PART):
        part = values[start : start + _PART]
        at = np.minimum(np.searchsorted(wanted, part), len(wanted) - 1)
        found.append(start + np.flatnonzero(wanted[at] == part))
    return np.concatenate(found)
