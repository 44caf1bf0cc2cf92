"""Greedy decoding against the letters' logits and a loop over the model's own forward pass."""

from __future__ import annotations

import numpy as np
import torch

from uqabench.llm.batches import batch_hidden, collate, group_prompts, letter_logits
from uqabench.llm.generate import greedy_texts
from uqabench.llm.prompts import SOFT, PromptBuilder, PromptConfig
from uqabench.vocabulary import LETTERS


def groups_of(lm, store, questions, templates, rows, n_soft):
    prompts = PromptBuilder(lm, store, templates, PromptConfig()).encode(questions, rows, n_soft=n_soft)
    keys = np.unique(np.stack([questions.user[rows], questions.cut[rows]], 1), axis=0, return_inverse=True)[1].ravel()
    return prompts, keys, group_prompts(prompts, keys, questions.answer[rows], rows)


def test_decoding_is_greedy_and_sees_its_own_soft_prompt(make_lm, small_store, small_train, templates):
    lm, rows = make_lm(), np.arange(10)
    prompts, keys, groups = groups_of(lm, small_store, small_train, templates, rows, 2)
    soft = torch.randn(keys.max() + 1, 2, lm.width) * 3
    with torch.no_grad():
        found = dict(greedy_texts(lm, groups, soft.flatten(0, 1), 3))
        assert sorted(found) == rows.tolist()
        for question, text in found.items():
            ids = torch.from_numpy(prompts[question])
            embeds = lm.embed(ids.clamp_min(0))
            embeds[ids == SOFT] = soft[keys[question]]
            produced = []
            for _ in range(3):
                produced.append(int(lm.model(inputs_embeds=embeds[None]).logits[0, -1].argmax()))
                if produced[-1] == lm.tokenizer.eos_token_id:
                    break
                embeds = torch.cat([embeds, lm.embed(torch.tensor(produced[-1:]))])
            assert text == lm.tokenizer.decode(produced, skip_special_tokens=True).strip()
    assert len(set(found.values())) > 1


def test_a_decoded_letter_is_the_letter_with_the_highest_logit(make_lm, small_store, small_train, templates):
    """With the other tokens' output weights turned down, the model says a letter most of the time."""
    lm, rows = make_lm("llama"), np.arange(20)
    _, _, groups = groups_of(lm, small_store, small_train, templates, rows, 0)
    with torch.no_grad():
        head = lm.model.get_output_embeddings().weight
        others = torch.ones(len(head), dtype=torch.bool)
        others[lm.letter_ids] = False
        head[others] *= 0.3
        texts = dict(greedy_texts(lm, groups, None, 1))
        batch = collate(groups, lm, 0, with_answers=False)
        logits = letter_logits(lm, batch, batch_hidden(lm, batch, None))
    best = {q: LETTERS[i] for q, i in zip(batch.questions.tolist(), logits.argmax(1).tolist(), strict=True)}
    said = {question: text for question, text in texts.items() if text in LETTERS}
    assert len(said) >= 5 and len(set(said.values())) > 1
    assert said == {question: best[question] for question in said}
