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

    White space around the text is stripped: some chat templates begin an answer with a blank.
    """
    n_soft = int((groups[0].prefix == SOFT).sum()) if groups else 0
    for group in groups:
        for question, rest in zip(group.questions, group.rests, strict=True):
            ids = torch.from_numpy(np.concatenate([group.prefix, rest])).to(lm.device)
            embeds = lm.embed(ids.clamp_min(0))
            if soft is not None:
                embeds = embeds.clone()
                embeds[ids == SOFT] = soft[group.key * n_soft : (group.key + 1) * n_soft].to(embeds.dtype)
            produced = lm.model.generate(
                inputs_embeds=embeds[None],
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=lm.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=lm.tokenizer.pad_token_id or lm.tokenizer.eos_token_id,
            )
            yield question, lm.tokenizer.decode(produced[0], skip_special_tokens=True).strip()
