"""Settings of `prepare`."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uqabench.errors import InputError


@dataclass
class PrepareConfig:
    """What is kept of a log and how its users are split (section 3.5.1 of the paper)."""

    min_item_interactions: int = 3
    """Items with fewer interaction rows are dropped."""
    min_user_length: int = 5
    """Users with fewer interactions are dropped."""
    max_user_length: int = 10_000
    """Users with more interactions are dropped."""
    max_sequence: int = 512
    """Each user's sequence is cut to its last N interactions."""
    exclude_items: list[str] = field(default_factory=list)
    """External ids of sensitive items to drop (`read_ids` reads them from a file)."""
    exclude_categories: list[str] = field(default_factory=list)
    """Sensitive categories to drop, by name; letter case does not matter."""
    salt_file: str | None = None
    """File with the key that anonymises user ids; a random key, forgotten afterwards, without one."""
    split_seed: int = 0
    """Seed of the user split, apart from every other seed."""
    evaluation_fraction: float = 0.1
    """Share of the users that evaluate."""
    strict: bool = False
    """Stop at the first bad row instead of counting it."""
    max_tokens: int = 100_000
    """Size of the word table of item texts; rarer words are left out."""

    def __post_init__(self) -> None:
        for name in ("min_item_interactions", "min_user_length", "max_user_length", "max_sequence", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r} and must be a whole number of at least 1.")
        if self.max_user_length < self.min_user_length:
            raise InputError(
                f"max_user_length is {self.max_user_length}, below min_user_length {self.min_user_length}: raise it."
            )
        if self.max_sequence < self.min_user_length:
            raise InputError(
                f"max_sequence is {self.max_sequence}, below min_user_length {self.min_user_length}: raise it."
            )
        if not isinstance(self.evaluation_fraction, int | float) or not 0 < self.evaluation_fraction < 1:
            raise InputError(f"evaluation_fraction is {self.evaluation_fraction!r} and must lie between 0 and 1.")
        if isinstance(self.split_seed, bool) or not isinstance(self.split_seed, int) or self.split_seed < 0:
            raise InputError(f"split_seed is {self.split_seed!r} and must be a whole number of at least 0.")

    def record(self) -> dict[str, Any]:
        """The settings for a manifest: of excluded items, which are sensitive, only number and digest, of the salt
        file only whether there is one."""
        ids = sorted(set(self.exclude_items))
        excluded = {"count": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
        return {**asdict(self), "exclude_items": excluded, "salt_file": self.salt_file is not None}


def read_ids(path: Path | str) -> list[str]:
    """One id a line, blank lines skipped; InputError names an unreadable file."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:  # a decoding error quotes the file
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise InputError(f"The list {path} cannot be read as UTF-8 text{reason}: name a readable file.") from error
    return [line.strip() for line in lines if line.strip()]
