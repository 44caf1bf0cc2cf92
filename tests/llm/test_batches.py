"""Rows that share a prefix against one prompt at a time, on real models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqabench.llm.batches import (
    PromptGroup,
    answer_loss,
    attention_mask,
    batch_hidden,
    collate,
    common_prefix,
    group_over_users,
    group_prompts,
    letter_logits,
    plan_group_batches,
)
from uqabench.llm.prompts import SOFT, PromptBuilder, PromptConfig

N_SOFT = 3


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def lm(request, make_lm):
    return make_lm(request.param)


def one_by_one(lm, prompt, soft=None):
    """Logits (L, V) of one prompt, through the model's own forward pass, without mask or positions of ours."""
    ids = torch.from_numpy(prompt)
    embeds = lm.model.get_input_embeddings()(ids.clamp_min(0))
    if soft is not None:
        embeds = torch.where((ids == SOFT)[:, None], spread(ids, soft), embeds)
    return lm.model(inputs_embeds=embeds[None]).logits[0]


def spread(ids, soft):
    """soft (n_soft, width) at the soft slots of ids, zeros elsewhere; differentiable."""
    places = (ids == SOFT).nonzero().squeeze(1)
    return torch.zeros(len(ids), soft.shape[1]).index_copy(0, places, soft)


def ask(lm, store, questions, templates, rows, *, n_text=0, n_soft=0, place="before-chat", language="en"):
    builder = PromptBuilder(lm, store, templates, PromptConfig(language=language, soft_prompt_place=place))
    return builder.encode(questions, rows, n_text=n_text, n_soft=n_soft)


def keys_of(questions, rows):
    pairs = np.stack([questions.user[rows], questions.cut[rows]], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()


@pytest.mark.parametrize(
    ("n_text", "n_soft", "place"),
    [(0, 0, "before-chat"), (8, 0, "before-chat"), (0, N_SOFT, "before-chat"), (0, N_SOFT, "before-question")],
)
def test_a_shared_prefix_changes_no_logit(lm, small_store, small_train, templates, n_text, n_soft, place):
    rows = np.arange(24)
    prompts = ask(lm, small_store, small_train, templates, rows, n_text=n_text, n_soft=n_soft, place=place)
    keys = keys_of(small_train, rows)
    soft = torch.randn(keys.max() + 1, n_soft, lm.width) if n_soft else None
    groups = group_prompts(prompts, keys, small_train.answer[rows], rows)
    assert max(len(group.rests) for group in groups) > 1, "no history is shared: nothing would be tested"
    with torch.no_grad():
        batch = collate(groups, lm, n_soft, with_answers=False)
        got = letter_logits(lm, batch, batch_hidden(lm, batch, None if soft is None else soft.flatten(0, 1)))
        assert sorted(batch.questions.tolist()) == rows.tolist()
        for question, logits in zip(batch.questions.tolist(), got, strict=True):
            own = None if soft is None else soft[keys[question]]
            expected = one_by_one(lm, prompts[question], own)[-1, lm.letter_ids]
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert float(got.std(0).min()) > 1e-2, "all prompts have the same logits: nothing would be tested"


def test_padding_and_neighbours_change_no_logit(lm, small_store, small_train, templates):
    rows = np.arange(24)
    prompts = ask(lm, small_store, small_train, templates, rows, n_text=6)
    groups = group_prompts(prompts, keys_of(small_train, rows), small_train.answer[rows], rows)
    shortest = min(groups, key=PromptGroup.n_tokens)
    assert shortest.n_tokens() < max(group.n_tokens() for group in groups)
    with torch.no_grad():
        alone, together = collate([shortest], lm, 0, with_answers=False), collate(groups, lm, 0, with_answers=False)
        expected = letter_logits(lm, alone, batch_hidden(lm, alone, None))
        hidden = batch_hidden(lm, together, None)
        assert hidden.isfinite().all()  # rows of padding too: no softmax over nothing
        got = letter_logits(lm, together, hidden)
    at = [together.questions.tolist().index(question) for question in shortest.questions]
    torch.testing.assert_close(got[at], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", ["before-chat", "before-question"])
def test_answer_loss_and_its_gradients_are_those_of_single_prompts(lm, small_store, small_train, templates, place):
    rows = np.arange(18)
    prompts = ask(lm, small_store, small_train, templates, rows, n_soft=N_SOFT, place=place)
    keys = keys_of(small_train, rows)
    soft = torch.randn(keys.max() + 1, N_SOFT, lm.width, requires_grad=True)
    weight = lm.model.get_input_embeddings().weight

    groups = group_prompts(prompts, keys, small_train.answer[rows], rows)
    batch = collate(groups, lm, N_SOFT, with_answers=True)
    loss = answer_loss(lm, batch, batch_hidden(lm, batch, soft.flatten(0, 1)))
    got = torch.autograd.grad(loss, [soft, weight])

    total = 0.0
    for row, prompt, key in zip(rows, prompts, keys, strict=True):
        answer = lm.answer_ids[int(small_train.answer[row])]
        logits = one_by_one(lm, np.concatenate([prompt, answer]), soft[key])
        predicted = logits[len(prompt) - 1 : -1].log_softmax(-1)
        total = total - predicted[torch.arange(len(answer)), torch.tensor(answer)].sum()
    expected = total / len(rows)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    for mine, naive in zip(got, torch.autograd.grad(expected, [soft, weight]), strict=True):
        assert float(naive.abs().max()) > 0
        torch.testing.assert_close(mine, naive, rtol=1e-3, atol=1e-4 * float(naive.abs().max()))


def test_states_of_a_middle_layer(small_lm):
    prompts = [np.array(ids) for ids in small_lm.encode(["one two three", "one two four"])]
    batch = collate(
        group_prompts(prompts, np.zeros(2), np.array([0, 3]), np.arange(2)), small_lm, 0, with_answers=False
    )
    with torch.no_grad():
        last, start = batch_hidden(small_lm, batch, None, layer=0)
        assert torch.equal(last, batch_hidden(small_lm, batch, None))
    assert torch.equal(start, small_lm.embed(batch.ids).flatten(0, 1))


def test_soft_slots_without_soft_prompts_are_named(small_lm):
    group = PromptGroup(0, np.array([SOFT, 7]), [np.array([8])], [0], [1])
    batch = collate([group], small_lm, 1, with_answers=False)
    with pytest.raises(ValueError, match="soft"):
        batch_hidden(small_lm, batch, None)


sequences = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@given(st.lists(sequences, min_size=1, max_size=6))
def test_common_prefix_is_common_leaves_a_token_and_is_the_longest(prompts):
    arrays = [np.array(prompt) for prompt in prompts]
    n = common_prefix(arrays)
    assert all(prompt[:n] == prompts[0][:n] and len(prompt) > n for prompt in prompts)
    assert any(len(prompt) == n + 1 for prompt in prompts) or len({prompt[n] for prompt in prompts}) > 1


@given(
    st.lists(st.tuples(st.integers(0, 4), sequences), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_groups_hold_every_prompt_once_under_its_key(members, max_questions):
    keys = np.array([key for key, _ in members])
    prompts = [np.array(prompt) for _, prompt in members]
    rows = np.arange(len(members)) + 100
    answers = rows % 4
    groups = group_prompts(prompts, keys, answers, rows, max_questions=max_questions)
    seen = []
    for group in groups:
        assert 1 <= len(group.rests) <= max_questions
        for rest, question, answer in zip(group.rests, group.questions, group.answers, strict=True):
            assert keys[question - 100] == group.key and answer == question % 4
            assert np.concatenate([group.prefix, rest]).tolist() == prompts[question - 100].tolist()
            seen.append(question)
    assert sorted(seen) == rows.tolist()


@given(
    st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(1, 9), min_size=1, max_size=4)), max_size=40),
    st.integers(1, 120),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_batches_keep_the_budget_and_partition_the_groups(shapes, budget, seed):
    groups = [
        PromptGroup(i, np.zeros(prefix, int), [np.zeros(n, int) for n in rests], [0] * len(rests), [0] * len(rests))
        for i, (prefix, rests) in enumerate(shapes)
    ]
    rng = None if seed is None else np.random.default_rng(seed)
    batches = plan_group_batches(groups, budget, rng=rng)
    assert sorted(group.key for batch in batches for group in batch) == list(range(len(groups)))
    for batch in batches:
        if len(batch) > 1:  # a group that is larger than the budget stands alone
            assert len(batch) * max(group.n_tokens() for group in batch) <= budget


def test_batches_are_filled(small_lm):
    groups = [PromptGroup(i, np.zeros(5, int), [np.zeros(5, int)], [i], [0]) for i in range(12)]
    assert [len(batch) for batch in plan_group_batches(groups, 40)] == [4, 4, 4]
    shuffled = plan_group_batches(groups, 40, rng=np.random.default_rng(0))
    assert [len(batch) for batch in shuffled] == [4, 4, 4]
    assert [g.key for batch in shuffled for g in batch] != list(range(12))


def test_positions_restart_after_the_prefix(small_lm):
    group = PromptGroup(2, np.array([SOFT, 4, 5]), [np.array([6]), np.array([7, 8])], [3, 9], [0, 1])
    short = replace(group, key=1, rests=[np.array([9])], questions=[5], answers=[2])
    batch = collate([group, short], small_lm, 1, with_answers=False)
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3, 4], [0, 1, 2, 3, 0, 0]]
    assert batch.prompt_end.tolist() == [3, 5, 6 + 3]
    assert batch.soft_at.tolist() == [0, 6] and batch.soft_from.tolist() == [2, 1]
    assert batch.questions.tolist() == [3, 9, 5] and batch.answers.tolist() == [0, 1, 2]
    mask = attention_mask(batch.spans)
    sees = (mask[0, 0] == 0).int().tolist()
    assert sees == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],  # the first rest: the prefix and itself
        [1, 1, 1, 0, 1, 0],  # the second does not see the first
        [1, 1, 1, 0, 1, 1],
    ]
    assert (mask[1, 0, 4:] == 0).int().tolist() == [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]  # padding


def test_a_soft_prompt_that_stands_last_is_shared_by_no_prefix(lm, small_store, small_train, templates):
    """Prompts about several users in one row: each has its own soft prompt, and the logits of a row of its own."""
    rows = np.arange(40)
    prompts = ask(lm, small_store, small_train, templates, rows, n_soft=N_SOFT, place="last")
    keys = keys_of(small_train, rows)
    soft = torch.randn(keys.max() + 1, N_SOFT, lm.width)
    tail = lm.encode([lm.chat_after])[0]
    for prompt in prompts:
        assert prompt[-len(tail) - N_SOFT :].tolist() == [SOFT] * N_SOFT + tail
        assert SOFT not in prompt[: -len(tail) - N_SOFT]
    groups = group_over_users(prompts, keys, small_train.answer[rows], rows)
    assert max(len(set(group.keys)) for group in groups) > 1, "no row is about several users: nothing would be tested"
    assert sum(group.n_tokens() for group in groups) < sum(map(len, prompts))
    with torch.no_grad():
        for packed in (False, True):
            batch = collate(groups, lm, N_SOFT, with_answers=False, packed=packed)
            got = letter_logits(lm, batch, batch_hidden(lm, batch, soft.flatten(0, 1)))
            assert sorted(batch.questions.tolist()) == rows.tolist()
            for question, logits in zip(batch.questions.tolist(), got, strict=True):
                expected = one_by_one(lm, prompts[question], soft[keys[question]])[-1, lm.letter_ids]
                torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 5),
)
def test_groups_over_users_hold_every_prompt_once(heads, n_soft, max_questions):
    prompts = [np.array([9, *head, *[SOFT] * n_soft, 7]) for head in heads]
    keys = np.arange(len(prompts)) % 4
    groups = group_over_users(prompts, keys, keys, np.arange(len(prompts)), max_questions=max_questions)
    found = {}
    for group in groups:
        assert len(group.rests) <= max_questions and SOFT not in group.prefix
        for place, (question, rest) in enumerate(zip(group.questions, group.rests, strict=True)):
            assert group.key_of(place) == keys[question] == group.answers[place]
            found[question] = np.concatenate([group.prefix, rest]).tolist()
    assert found == {row: prompt.tolist() for row, prompt in enumerate(prompts)}


def test_no_prefix_cuts_a_soft_prompt():
    same = np.array([5, SOFT, SOFT])
    assert common_prefix([same, same]) == 1
    assert common_prefix([np.array([SOFT, SOFT, 1]), np.array([SOFT, SOFT, 2])]) == 2
