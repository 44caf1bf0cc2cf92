"""User ids leave the log as keyed digests; the key (salt) never enters the store."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from uqabench.errors import InputError

MIN_SALT_BYTES = 16
_KEY_BYTES = hashlib.blake2b.MAX_KEY_SIZE


def read_salt(path: Path | str | None) -> bytes:
    """The bytes of a salt file, or fresh random ones from the operating system when there is none.

    Short salts are refused: raw ids are often small integers, and a guessed salt would undo every digest.
    """
    if path is None:
        return secrets.token_bytes(_KEY_BYTES)
    try:
        salt = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"The salt file {path} cannot be read ({error.strerror}): name a readable file.") from error
    if len(salt) < MIN_SALT_BYTES:
        raise InputError(
            f"The salt file {path} has {len(salt)} bytes and needs {MIN_SALT_BYTES} or more: "
            "make one with `head -c 32 /dev/urandom > FILE`."
        )
    return salt


def anonymise(user_ids: Sequence[str], salt: bytes) -> list[str]:
    """32 hexadecimal digits for each id: BLAKE2b (RFC 7693) keyed with the salt."""
    key = salt if len(salt) <= _KEY_BYTES else hashlib.blake2b(salt).digest()
    return [hashlib.blake2b(user.encode(), digest_size=16, key=key).hexdigest() for user in user_ids]


def fingerprint(salt: bytes) -> str:
    """One-way mark of a salt, by which a second preparation sees whether the salt file is still the same."""
    return anonymise(["uqabench salt fingerprint"], salt)[0]
