"""Training of the small language model: whose questions, which documents, what loss."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from uqabench.errors import InputError
from uqabench.llm.batches import PromptGroup, batch_hidden, collate
from uqabench.llm.demo import SmallLMConfig
from uqabench.llm.history import history_vectors
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT, PromptBuilder, PromptConfig
from uqabench.questions.render import history_items
from uqabench.stages.lm_documents import Documents, TrainLMConfig
from uqabench.stages.train_lm import text_loss, train_lm
from uqabench.stages.training import OptimConfig


def config(steps=3, **changes):
    optim = OptimConfig(lr=5e-3, epochs=50, max_steps=steps, checkpoint_seconds=1e9)
    shape = SmallLMConfig(vocab_size=600, width=16, layers=1, heads=2, inner=32)
    rounds = {"letter_rounds": 0, "vector_rounds": 0, "easy_rounds": 0}  # documents from the first step on
    defaults = {"model": shape, "optim": optim, "documents_a_round": 8, "held_out_users": 6, **rounds}
    return TrainLMConfig(**{**defaults, **changes})


@pytest.fixture
def documents(small_lm, small_store, small_train, templates):
    builder = PromptBuilder(small_lm, small_store, templates, PromptConfig())
    return Documents(small_lm, small_store, small_train, builder, config())


@pytest.fixture
def train(small_store, small_train, templates):
    def run(out, settings, questions=small_train):
        return train_lm(small_store, questions, "hash", templates, PromptConfig(), out, settings, progress=False)

    return run


def test_held_out_users_are_never_trained_on(documents, small_train):
    held_out = set(documents.pairs[documents.n_train :, 0].tolist())
    assert len(held_out) == 6
    seen = set()
    for epoch in range(30):
        for batch in documents.batches(epoch):
            for group in batch:
                users = {int(small_train.user[question]) for question in group.questions}
                assert users == {int(documents.pairs[group.key, 0])}
                seen |= users
    assert not seen & held_out
    assert len(seen) > 0.9 * len(set(small_train.user.tolist()) - held_out)


@pytest.mark.parametrize(("letters", "vectors"), [(1, 0), (0, 1), (2, 2)])
def test_exercises_come_before_documents(small_lm, small_store, small_train, templates, letters, vectors):
    """The first rounds name the letter of a given value; more of them than there are questions is no obstacle."""
    builder = PromptBuilder(small_lm, small_store, templates, PromptConfig())
    settings = config(letter_rounds=letters, vector_rounds=vectors)
    documents = Documents(small_lm, small_store, small_train.select(np.arange(30)), builder, settings)
    for epoch in range(letters + vectors):
        for part in documents.batches(epoch)[:3]:
            soft, renumbered = documents.soft(part, noise=0.0)
            batch = collate(renumbered, small_lm, 1, with_answers=True)
            assert (soft is None) == (epoch < letters) == (len(batch.soft_at) == 0)
            assert batch_hidden(small_lm, batch, soft).isfinite().all()
            assert len(np.unique(batch.answers)) == 4
    lessons = [group for batch in documents.batches(letters + vectors) for group in batch]
    assert all(group.targets is not None and group.key >= 0 for group in lessons)


def test_rounds_follow_the_seed_alone(documents):
    def shape(batches):
        return [[(g.key, g.prefix.tolist(), g.questions) for g in batch] for batch in batches]

    assert shape(documents.batches(3)) == shape(documents.batches(3)) != shape(documents.batches(4))


def test_a_soft_slot_holds_the_vector_of_its_history(documents, small_store, small_train):
    groups = [group for batch in documents.batches(0) for group in batch]
    soft, renumbered = documents.soft(groups, noise=0.0)
    slots = [i for i, group in enumerate(groups) if SOFT in group.prefix]
    assert 1 < len(slots) < len(groups)
    histories = [
        history_items(small_store, *(int(x) for x in documents.pairs[groups[i].key]), small_train.n_history)
        for i in slots
    ]
    weight = documents.lm.model.get_input_embeddings().weight
    expected = history_vectors(weight, *documents.tokens.bags(histories)).detach()
    torch.testing.assert_close(soft.detach(), expected)
    assert [renumbered[i].key for i in slots] == list(range(len(slots)))
    noisy, _ = documents.soft(groups, noise=0.5)
    assert 0 < float((noisy.detach() - expected).square().mean()) < float(0.3 * expected.square().mean())


def naive_text_losses(lm, groups, vectors):
    """Cross entropy of every text token that stands right behind its predecessor in the row, prompt by prompt: all but
    the first tokens of the prefix and of every rest but the first."""
    terms = []
    for group in groups:
        for span, rest in enumerate([group.prefix, *group.rests]):
            ids = rest if span == 0 else np.concatenate([group.prefix, rest])
            if span:
                ids = np.concatenate([ids, group.targets[span - 1][:-1]])
            soft = torch.from_numpy(ids == SOFT)
            embeds = lm.embed(torch.from_numpy(np.maximum(ids, 0)))
            if soft.any():
                embeds = embeds.masked_fill(soft[:, None], 0.0) + soft[:, None] * vectors[group.key]
            logits = lm.model(inputs_embeds=embeds[None]).logits[0]
            for i in range(len(group.prefix) + (span > 1) if span else 1, len(ids)):
                if not soft[i]:
                    terms.append(cross_entropy(logits[i - 1], torch.tensor(ids[i])))
    return torch.stack(terms)


def test_the_text_loss_is_next_token_cross_entropy_of_each_span(documents):
    """In a batch of few tokens of all of them, in a larger one of a sample."""
    lm = documents.lm
    words = lm.encode(["one two three", "four", "five six"])
    rests, targets = [np.array(words[0]), np.array([9])], [[11, 2], [12, 13, 2]]
    small = [
        PromptGroup(0, np.array([SOFT, 7, 8]), rests, [0, 1], [0, 0], targets),
        PromptGroup(1, np.array(words[1][:4]), [np.array(words[2][:5])], [2], [0], [[14, 2]]),
    ]
    vectors = torch.randn(2, lm.width)
    large = [group for batch in documents.batches(1) for group in batch][:4]
    with torch.no_grad():
        batch = collate(small, lm, 1, with_answers=True)
        expected = float(naive_text_losses(lm, small, vectors).mean())
        assert float(text_loss(lm, batch, batch_hidden(lm, batch, vectors))) == pytest.approx(expected, rel=1e-4)

        soft, renumbered = documents.soft(large, noise=0.0)
        batch = collate(renumbered, lm, 1, with_answers=True)
        hidden = batch_hidden(lm, batch, soft)
        expected = float(naive_text_losses(lm, renumbered, soft).mean())
        torch.manual_seed(0)
        draws = [float(text_loss(lm, batch, hidden)) for _ in range(40)]
        assert np.mean(draws) == pytest.approx(expected, rel=0.02)


def test_a_few_steps_lower_the_loss(train, tmp_path):
    artifact, _ = train(tmp_path / "x", config(steps=20, token_budget=1024, text_weight=0.3))
    losses = [json.loads(line) for line in (artifact.path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in losses if "loss" in row]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5


def test_the_model_carries_its_card(train, tmp_path, small_store):
    artifact, _ = train(tmp_path / "x", config())
    lm = LanguageModel.load(artifact.path / "model")
    lm.check_split(small_store.split_hash)
    with pytest.raises(InputError, match="another split"):
        lm.check_split("0" * 64)
    assert lm.card["steps"] == 3 == artifact.json("metrics.json")["steps"]
    assert lm.card["parameters"] == sum(p.numel() for p in lm.model.parameters())
    assert {"text20", "text50", "no-history"} <= set(lm.card["held_out_accuracy"])
    for scores in lm.card["held_out_accuracy"].values():
        assert 0 <= scores["overall"] <= 100 and scores["n"] > 0


def test_equal_seeds_equal_models_and_reuse(train, tmp_path):
    first, reused = train(tmp_path / "a", config())
    assert not reused and train(tmp_path / "a", config())[1]
    assert train(tmp_path / "b", config())[0].content == first.content
    assert train(tmp_path / "c", config(seed=1))[0].content != first.content


def test_no_steps_leave_the_initial_weights(train, tmp_path):
    artifact, _ = train(tmp_path / "x", config(steps=0))
    assert artifact.json("metrics.json")["steps"] == 0
    assert LanguageModel.load(artifact.path / "model").width == 16


def test_questions_of_evaluation_users_are_refused(train, small_evaluation, tmp_path):
    with pytest.raises(InputError, match="training users only"):
        train(tmp_path / "x", config(), small_evaluation)
    assert list(tmp_path.iterdir()) == []


def test_more_held_out_users_than_there_are(train, tmp_path):
    with pytest.raises(InputError, match=r"llm.train.held_out_users is 500, but the questions are about \d+ users"):
        train(tmp_path / "x", config(held_out_users=500))
    with pytest.raises(InputError, match="llm.train.held_out_users is 0"):
        replace(config(), held_out_users=0)
    assert list(tmp_path.iterdir()) == []
