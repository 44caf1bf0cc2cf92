"""A small Qwen2-architecture language model made for one data set: its tokenizer, its shape, its folder."""

from __future__ import annotations

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


SEPARATOR = r" \| "  # between the fields of an item's line: left out of the ids, the line's end is enough
# Of the softmax, for equal tokens some distance apart; unequal ones have 0 ± 2.5, a token and itself 0.
MATCHING_SCORE = 7.0
MATCHING_STD = 0.1
# A head then adds what it copies at about the size of a token embedding.
EMBEDDING_STD, COPY = 0.08, 0.25
BOUNDARY = r"\n| → |; | \(no change\)|\"|[A-D]\. "


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A unigram tokenizer whose pieces are whole attribute values and phrases; the rest falls to words and bytes.

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
    """Let half the heads of every layer begin by attending to equal content elsewhere and copying it.

    Matching an option with a history is made of such heads; from a plain Gaussian start they took thousands of steps
    to appear. Query and key projections are equal, so that a token's score is highest at its own likes, but for the
    sign of the dimensions which the rotary embedding turns fastest: at distance 0 these cancel the slow ones, further
    away they average to nothing, and so a token does not see itself. (With them equal, a head attends to its own token
    and tells nothing: naming the value that a text contains is right in 25 of 100 cases after 500 steps, with the signs
    turned in 91.) The output projection is the transpose of the value projection.
    """
    size = config.width // config.heads
    model.model.embed_tokens.weight.normal_(std=EMBEDDING_STD)
    turned = torch.ones(size)
    turned[torch.arange(size) % (size // 2) < size // 4] = -1.0
    scale = (2 * MATCHING_SCORE / size**0.5) ** 0.5
    for layer in model.model.layers:
        attention = layer.self_attn
        for head in range(max(1, config.heads // 2)):
            rows = slice(head * size, (head + 1) * size)
            projection = scale * torch.linalg.qr(torch.randn(config.width, size)).Q.t()
            attention.q_proj.weight[rows] = projection
            attention.k_proj.weight[rows] = projection * turned[:, None]
            attention.v_proj.weight[rows].normal_(std=MATCHING_STD)
            attention.o_proj.weight[:, rows] = COPY * attention.v_proj.weight[rows].t()


def save_model(model: torch.nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write model (safetensors) and tokenizer as a Hugging Face folder; equal ones give equal bytes."""
    for how_it_was_loaded in ("local_files_only", "is_local"):
        tokenizer.init_kwargs.pop(how_it_was_loaded, None)
    with quiet():
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
