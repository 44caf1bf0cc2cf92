"""Bad rows: counted by reason, listed by file and row, or fatal under `strict`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uqabench.errors import InputError

LISTED = 20

REASONS = (
    "malformed row",
    "not UTF-8",
    "missing id",
    "unparsable time",
    "unknown item",
    "duplicate item",
    "lists of unequal length",
    "id out of range",
    "unreadable question",
)


class Rejections:
    """Collects bad rows. A row with several faults counts once, under the first of REASONS that holds.

    Only file, row, reason and the form of a value are kept: a rejected row's values could name a person.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.listed: list[dict[str, str | int]] = []

    def add(
        self,
        file: str,
        rows: np.ndarray,
        reasons: np.ndarray,
        lines: np.ndarray | None = None,
        form_of: Callable[[int], str | None] | None = None,
    ) -> None:
        """Record rows of one file, in ascending order; `reasons` are indices into REASONS.

        Row 1 is the first record after the header. `lines` are those that each row takes. `form_of` says, for an index
        into `rows`, what the faulty value looks like. Raises InputError for the first row when strict.
        """
        if len(rows) and self.strict:
            first = self._line(file, rows, reasons, lines, form_of, 0)
            details = [f"{first['lines']} lines"] if "lines" in first else []
            details += [f"of the form {first['form']}"] if "form" in first else []
            about = f" ({', '.join(details)})" if details else ""
            raise InputError(
                f"{file}, row {rows[0]}: {first['reason']}{about}; correct it, or leave out --strict to skip such rows."
            )
        for code, reason in enumerate(REASONS):
            found = np.flatnonzero(reasons == code)
            room = max(0, LISTED - self.counts[reason])
            self.listed += [self._line(file, rows, reasons, lines, form_of, int(i)) for i in found[:room]]
            if len(found):
                self.counts[reason] += len(found)

    def add_those_of(self, later: Rejections) -> None:
        """Record what was collected of later files elsewhere."""
        room = {reason: max(0, LISTED - self.counts[reason]) for reason in REASONS}
        for line in later.listed:
            room[line["reason"]] -= 1
            if room[line["reason"]] >= 0:
                self.listed.append(line)
        self.counts += later.counts

    @staticmethod
    def _line(
        file: str,
        rows: np.ndarray,
        reasons: np.ndarray,
        lines: np.ndarray | None,
        form_of: Callable[[int], str | None] | None,
        i: int,
    ) -> dict[str, str | int]:
        line: dict[str, str | int] = {"reason": REASONS[reasons[i]], "file": file, "row": int(rows[i])}
        if lines is not None and lines[i] > 1:
            line["lines"] = int(lines[i])
        form = form_of(i) if form_of is not None else None
        return line if form is None else {**line, "form": form}

    def example(self, reason: str) -> str:
        """What the first listed row of a reason looks like, as the end of a sentence; empty where nothing is known."""
        known = next((line for line in self.listed if line["reason"] == reason), {})
        if "form" in known:
            return f" such as {known['form']}"
        return f" ({known['lines']} lines in one)" if "lines" in known else ""

    def summary(self) -> dict[str, int]:
        """Rows by reason, in the order of REASONS; reasons without rows are left out."""
        return {reason: self.counts[reason] for reason in REASONS if self.counts[reason]}

    def save(self, path: Path) -> None:
        """One JSON line for each listed row (the first LISTED of each reason)."""
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.listed), encoding="utf-8")
