"""A small Qwen2-architecture language model made for one data set: its tokenizer, its shape, its folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uqabench.errors import InputError, MissingExtra

# The shortest chat format that keeps roles apart: three tokens around a question.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


@dataclass(frozen=True)
class SmallLMConfig:
    """Shape of a small Qwen2 model: vocabulary size (tokens), width, layers, attention heads, MLP inner width."""

    vocab_size: int = 4096
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    max_positions: int = 4096


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE whose merges may cross spaces but not lines, field separators or option letters.

    A frequent attribute value ("FLUID MILK PRODUCTS") or phrase thus becomes one token, which a small model needs:
    with word pieces it stays at chance on matching options to histories.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtra("transformers", "llm", "Building a language model") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n| \| | → |; |, | \(|\"|[A-D]\. "), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


def new_model(config: SmallLMConfig, tokenizer: Any, seed: int) -> torch.nn.Module:
    """A Qwen2 model with Gaussian initial weights for the tokenizer's vocabulary; embeddings tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if config.width % config.heads or (config.width // config.heads) % 2:
        raise InputError(f"width {config.width} must be an even multiple of heads {config.heads} (rotary embedding).")
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
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


def save_model(model: torch.nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write model (safetensors) and tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
