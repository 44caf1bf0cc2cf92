"""Bad rows: counted by reason, listed by file and row, or fatal under `strict`."""

from __future__ import annotations

import json
from collections import Counter
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
)


class Rejections:
    """Collects bad rows. A row with several faults counts once, under the first of REASONS that holds.

    Only file, row and reason are kept: a rejected row's values could name a person.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.listed: list[dict[str, str | int]] = []

    def add(self, file: str, rows: np.ndarray, reasons: np.ndarray) -> None:
        """Record rows of one file, in ascending order; `reasons` are indices into REASONS.

        Row 1 is the first record after the header. Raises InputError for the first row when strict.
        """
        if len(rows) and self.strict:
            raise InputError(
                f"{file}, row {rows[0]}: {REASONS[reasons[0]]}; correct it, or leave out --strict to skip such rows."
            )
        for code, reason in enumerate(REASONS):
            found = rows[reasons == code]
            room = max(0, LISTED - self.counts[reason])
            self.listed += [{"reason": reason, "file": file, "row": int(row)} for row in found[:room]]
            if len(found):
                self.counts[reason] += len(found)

    def summary(self) -> dict[str, int]:
        """Rows by reason, in the order of REASONS; reasons without rows are left out."""
        return {reason: self.counts[reason] for reason in REASONS if self.counts[reason]}

    def save(self, path: Path) -> None:
        """One JSON line for each listed row (the first LISTED of each reason)."""
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.listed), encoding="utf-8")
