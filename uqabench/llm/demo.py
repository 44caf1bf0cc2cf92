"""A small Qwen2-architecture language model made for one data set: its tokenizer, its shape, its folder."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from uqabench.errors import InputError, MissingExtra
from uqabench.llm.sources import quiet
from uqabench.settings.llm import SmallLMConfig

# The shortest chat format that keeps roles apart: three tokens around a question.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


STORED = torch.float16
"""Number format of a trained model's weights on disk: half the bytes of float32, and errors of a 2,000th."""
SEPARATOR = r" \| "
"""Regular expression of what stands between the fields of an item's line; it gets no token, the line's end suffices."""
BOUNDARY = r"\n| → |; | \(no change\)|\"|[A-D]\. "
"""Regular expression of where a piece of text ends: lines, lists, paths, quotes and option letters."""

MATCHING_SCORE = 7.0
"""Attention logit that a matching head starts with for two equal tokens some distance apart. The logit of two different
tokens is 0 ± 2.5, that of a token and itself is 0."""
MATCHING_STD = 0.1
"""Standard deviation of a matching head's value projection."""
EMBEDDING_STD, COPY = 0.08, 0.25
"""Standard deviation of the token embeddings, and the gain with which a matching head copies them: what it adds to the
residual stream is then about as large as a token embedding."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A unigram tokenizer whose tokens are whole attribute values and phrases; rarer text becomes words and bytes.

    Pieces end at lines, field separators, list separators, quotes and option letters, so "carrots mini peeled, 2 lb,
    private brand, carrots" is one token: an item of four attributes takes five tokens (with byte-level BPE, 14 and
    more), and comparing an option with a history is comparing tokens, which a small model learns.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtra("transformers", "llm", "Building a language model") from error
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SEPARATOR), "removed"), pre_tokenizers.Split(Regex(BOUNDARY), "isolated")]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    reserved = {"<|unk|>", *SPECIAL_TOKENS, *bytes_}
    room = vocab_size - len(SPECIAL_TOKENS) - len(bytes_) - 1
    if room < 1:
        raise InputError(f"vocab_size is {vocab_size}: it must be above {vocab_size - room}, for bytes and roles.")
    wholes, words = ([piece for piece in found if piece not in reserved] for found in _pieces(texts, splitter))
    chosen = dict.fromkeys(wholes[: room - min(len(words), room // 8)], -1.0)
    for word in words:
        if len(chosen) == room:
            break
        chosen.setdefault(word, -10.0)
    scores = [(token, 0.0) for token in ("<|unk|>", *SPECIAL_TOKENS)] + [(token, -30.0) for token in bytes_]
    tokenizer = Tokenizer(models.Unigram([*scores, *chosen.items()], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        chat_template=CHAT_TEMPLATE,
    )


def _pieces(texts: Iterable[str], splitter: Any) -> tuple[list[str], list[str]]:
    """Whole pieces and the words of pieces, most frequent first, ties by spelling."""
    wholes: Counter[str] = Counter()
    for text in texts:
        wholes.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    words: Counter[str] = Counter()
    for piece, count in wholes.items():
        for word in re.findall(r" ?[^ ]+", piece):
            words[word] += count
    return tuple(sorted(found, key=lambda piece: (-found[piece], piece)) for found in (wholes, words))


def new_model(config: SmallLMConfig, tokenizer: Any, seed: int) -> torch.nn.Module:
    """A Qwen2 model with Gaussian initial weights for the tokenizer's vocabulary; embeddings tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.inner,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.size_of_head,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=True,
            initializer_range=0.02,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="sdpa",
        )
    )
    start_with_matching(model, config)
    return model


@torch.no_grad()
def start_with_matching(model: torch.nn.Module, config: SmallLMConfig) -> None:
    """Initialise half the heads of every layer as matching heads: they attend to equal tokens elsewhere and copy them.

    Comparing an option with a history needs such heads, and from a plain Gaussian initialisation they take thousands
    of steps to emerge. The key projection of a matching head is its query projection, so that equal tokens have the
    largest logits, except that the dimensions with the fastest rotary frequencies have the opposite sign. At distance
    0 these dimensions cancel the slow ones; at larger distances their contributions average out. A token therefore
    does not attend to itself, which would tell the head nothing. The output projection is the transpose of the value
    projection. docs/decisions.md has what each choice is worth.
    """
    size = config.size_of_head
    model.model.embed_tokens.weight.normal_(std=EMBEDDING_STD)
    sign = torch.ones(size)
    sign[torch.arange(size) % (size // 2) < size // 4] = -1.0
    scale = (2 * MATCHING_SCORE / size**0.5) ** 0.5
    for layer in model.model.layers:
        attention = layer.self_attn
        for head in range(max(1, config.heads // 2)):
            rows = slice(head * size, (head + 1) * size)
            projection = scale * torch.linalg.qr(torch.randn(config.width, size)).Q.t()
            attention.q_proj.weight[rows] = projection
            attention.k_proj.weight[rows] = projection * sign[:, None]
            attention.v_proj.weight[rows].normal_(std=MATCHING_STD)
            attention.o_proj.weight[:, rows] = COPY * attention.v_proj.weight[rows].t()


@torch.no_grad()
def in_stored_format(model: torch.nn.Module) -> torch.nn.Module:
    """Round the weights of `model` in place to those of the copy that is returned, whose format is `STORED`."""
    stored = copy.deepcopy(model).to(STORED)
    for weight, rounded in zip(model.parameters(), stored.parameters(), strict=True):
        weight.copy_(rounded)
    return stored


def save_model(model: torch.nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write model (safetensors) and tokenizer as a Hugging Face folder; equal ones give equal bytes."""
    for how_it_was_loaded in ("local_files_only", "is_local"):
        tokenizer.init_kwargs.pop(how_it_was_loaded, None)
    with quiet():
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
