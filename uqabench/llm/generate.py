"""Greedy decoding of answers, for the published "starts with the gold answer" rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from uqabench.llm.batches import PromptGroup
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT


def greedy_texts(
    lm: LanguageModel, groups: list[PromptGroup], soft: Tensor | None, max_new_tokens: int
) -> Iterator[tuple[int, str]]:
    """(question, generated text) for every question of `groups`, one prompt at a time; `soft` as for `batch_hidden`.

    White space around the text is stripped: some chat templates begin an answer with a blank. Every token is a forward
    pass over the prompt (an answer is one token): transformers' `generate` takes no soft prompts for one architecture
    in ten, counts positions otherwise for others, and follows a model's own penalties.
    """
    for group in groups:
        for place, (question, rest) in enumerate(zip(group.questions, group.rests, strict=True)):
            ids = torch.from_numpy(np.concatenate([group.prefix, rest])).to(lm.device)
            embeds = lm.embed(ids.clamp_min(0))
            if soft is not None:
                embeds, slots = embeds.clone(), ids == SOFT
                own = soft.unflatten(0, (-1, int(slots.sum())))[group.key_of(place)]
                embeds[slots] = own.to(embeds.dtype)
            produced = _greedy(lm, embeds, max_new_tokens)
            yield question, lm.tokenizer.decode(produced, skip_special_tokens=True).strip()


def _greedy(lm: LanguageModel, embeds: Tensor, max_new_tokens: int) -> list[int]:
    """Tokens that follow embeddings (L, width), up to the end of the turn or the model's last position."""
    ends, rows = _end_tokens(lm), len(lm.model.get_input_embeddings().weight)  # a head may have rows for no token
    produced: list[int] = []
    while len(produced) < max_new_tokens and (lm.max_positions is None or len(embeds) <= lm.max_positions):
        mask = torch.ones(1, len(embeds), dtype=torch.long, device=lm.device)
        produced.append(int(lm.logits(lm.hidden(embeds[None], mask, None)[0, -1:])[0, :rows].argmax()))
        if produced[-1] in ends:
            break
        embeds = torch.cat([embeds, lm.embed(torch.tensor(produced[-1:], device=lm.device))])
    return produced


def _end_tokens(lm: LanguageModel) -> set[int]:
    ends = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    listed = ends if isinstance(ends, list) else [ends]
    return {token for token in [*listed, lm.tokenizer.eos_token_id] if token is not None}
