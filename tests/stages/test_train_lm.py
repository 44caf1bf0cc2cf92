"""Training of the small language model: whose questions, which documents, what loss."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations import NEXT
from uqabench.llm.batches import answer_loss, collate
from uqabench.llm.demo import SmallLMConfig
from uqabench.llm.history import history_vectors, window_marker
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import SOFT, PromptBuilder, PromptConfig
from uqabench.questions.render import history_items
from uqabench.stages import train_lm as train_lm_module
from uqabench.stages.lm_documents import DocumentBatch, Documents, TrainLMConfig, token_windows
from uqabench.stages.lm_embeddings import train_embeddings
from uqabench.stages.lm_probe import OptionProbe
from uqabench.stages.lm_vectors import SoftVectors
from uqabench.stages.train_lm import train_lm
from uqabench.stages.training import OptimConfig


def config(steps=3, **changes):
    optim = OptimConfig(lr=5e-3, epochs=50, max_steps=steps, checkpoint_seconds=1e9)
    shape = SmallLMConfig(vocab_size=600, width=16, layers=1, heads=2, inner=32)
    rounds = {"hint_rounds": 0, "fade_rounds": 0}  # documents of all kinds from the first step on
    defaults = {"model": shape, "optim": optim, "documents_a_round": 8, "embedding_steps": 2, "held_out_users": 6}
    defaults |= rounds
    return TrainLMConfig(**{**defaults, **changes})


@pytest.fixture
def documents(small_lm, small_store, small_train, templates):
    return new_documents(small_lm, small_store, small_train, templates, config())


def new_documents(lm, store, questions, templates, settings):
    builder = PromptBuilder(lm, store, templates, PromptConfig())
    documents = Documents(SoftVectors(lm, builder), store, questions, builder, settings)
    documents.measure_vectors()
    return documents


@pytest.fixture
def train(small_store, small_train, templates):
    def run(out, settings, *sets):
        asked = {f"v{number}": questions for number, questions in enumerate(sets or (small_train,), start=1)}
        contents = dict.fromkeys(asked, "hash")
        return train_lm(small_store, asked, contents, templates, PromptConfig(), settings, progress=False).build(out)

    return run


def test_held_out_users_are_never_trained_on(documents, small_train):
    held_out = set(documents.pairs[documents.n_train :, 0].tolist())
    assert len(held_out) == 6
    seen = set()
    for epoch in range(30):
        for batch in documents.batches(epoch):
            for group in batch.groups:
                users = {int(small_train.user[question]) for question in group.questions}
                assert users == {int(documents.pairs[group.key, 0])}
                seen |= users
    assert not seen & held_out
    assert len(seen) > 0.9 * len(set(small_train.user.tolist()) - held_out)


def test_hints_come_first_and_fade(small_lm, small_store, small_train, templates):
    """Single questions about vectors: first the right answer's own, then ever more the history's; then all kinds."""
    settings = config(hint_rounds=2, fade_rounds=3, documents_a_round=32)
    documents = new_documents(small_lm, small_store, small_train, templates, settings)
    assert [documents.hint_weight(n) for n in range(7)] == [1, 1, 0.75, 0.5, 0.25, 0, 0]
    weight = small_lm.model.get_input_embeddings().weight.detach()
    likeness = []
    for n in range(5):
        batches = documents.batches(n)
        assert all(len(group.questions) == 1 for batch in batches for group in batch.groups)
        assert {len(batch.windows) for batch in batches} == {0, 1, 2, 8}
        alike = []
        for batch in (batch for batch in batches if batch.windows):
            marked, _ = documents.soft(batch, noise=0.5)
            soft = marked.detach().view(len(batch.groups), len(batch.windows), -1) - markers(small_lm, batch.windows)
            answers = [documents.option_tokens(g.questions[0])[g.answers[0]] for g in batch.groups]
            named = torch.stack([weight[torch.from_numpy(ids)].mean(0) for ids in answers])
            alike.append(torch.cosine_similarity(soft, named[:, None], dim=-1).flatten())
            torch.testing.assert_close(soft.square().mean(-1), weight.square().mean().expand(soft.shape[:2]))
        likeness.append(float(torch.cat(alike).mean()))
    assert likeness[0] == pytest.approx(1) and likeness[1] == pytest.approx(1)
    assert sorted(likeness, reverse=True)[2:] == likeness[2:] and likeness[4] < 0.6
    assert max(len(group.questions) for batch in documents.batches(5) for group in batch.groups) > 1


def markers(lm, windows):
    return torch.stack([window_marker(lm, window) for window in windows]).detach()


@pytest.mark.parametrize(("hint", "least", "most"), [(1.0, 3, 3), (0.5, 11, 13)])
def test_a_hinted_text_shows_the_right_answer_and_no_wrong_one(documents, small_train, small_store, hint, least, most):
    """Read back from the prompt: with text_lengths of 5, 20 and 50 half a hint is 10 other items."""
    documents.hint = hint
    pairs = np.arange(len(documents.pairs))
    groups = documents.hinted_texts(pairs, np.random.default_rng(0))
    assert len(groups) > 0.9 * len(pairs)
    items_of: dict[str, list[int]] = {}
    for item in range(len(small_store.catalogue)):
        items_of.setdefault(documents.builder.item_line(item).replace(" | ", ""), []).append(item)
    counts = []
    for group in groups:
        (row,) = group.questions
        asked = documents.builder.question(small_train, row).question
        text = documents.lm.tokenizer.decode(np.concatenate([group.prefix, *group.rests]))
        lines = text.split("History:\n")[1].split("\n" + asked)[0].split("\n")
        codes = documents.codes[small_train.attribute[row]]
        shown = [{int(codes[item]) for item in items_of[line]} for line in lines]
        right = set(small_train.option(row, int(small_train.answer[row])))
        wrong = {value for place in range(4) for value in small_train.option(row, place)} - right
        assert all(any(value in values for values in shown) for value in right)
        assert not any(values <= wrong for values in shown)
        counts.append(len(lines))
    assert least <= max(counts) <= most


def test_vectors_are_asked_what_they_can_know(documents, small_train):
    def asked(n_text, windows):
        groups = documents.groups(np.arange(len(documents.pairs)), n_text, windows)
        return [row for group in groups for row in group.questions]

    assert set(small_train.subtask_names()[asked(0, (None,))]) == {"ip", "ap", "li", "si", "it"}
    assert set(small_train.subtask_names()[asked(0, (None, 1))]) == {"df", "ip", "ap", "li", "si", "it"}
    assert sorted(asked(5, ())) == list(range(len(small_train)))


def test_the_probe_finds_where_options_end(documents):
    lm = documents.lm
    probe = OptionProbe(lm)
    groups = documents.groups(np.arange(20), 5) + documents.groups(np.arange(20), 0, (None,))
    batch = collate(groups, lm, 1, with_answers=True)
    ids, ends = batch.ids.reshape(-1), probe.option_ends(batch)
    rows = [row for group in groups for row in group.questions]
    assert (ids[ends] == probe.newline).all()
    for row, (first, *others), end in zip(rows, ends.tolist(), batch.prompt_end.tolist(), strict=True):
        options = documents.builder.question(documents.questions, row).options
        for k, (before, after) in enumerate(zip([first, *others], [*others, end], strict=True)):
            text = f"{'BCD'[k]}. {options[k + 1]}\n" if k < 3 else "Answer:"
            assert lm.tokenizer.decode(ids[before + 1 : after + 1]).startswith(text)


def test_the_probe_asks_for_the_right_option_and_for_letters(documents):
    """With heads that know both, its loss is next to nothing; with the wrong option marked, it is not."""
    lm = documents.lm
    probe = OptionProbe(lm)
    batch = collate(documents.groups(np.arange(20), 0), lm, 1, with_answers=True)
    ends = probe.option_ends(batch)
    marks = torch.zeros(batch.ids.numel(), lm.width)
    marks[ends, 1 + torch.arange(4)] = 1.0
    marks[ends[torch.arange(len(ends)), batch.answers], 0] = 1.0
    probe.norm = torch.nn.Identity()
    with torch.no_grad():
        probe.heads.weight.zero_()[torch.arange(5), torch.arange(5)] = 50.0
        assert float(probe(marks, batch)) < 1e-4
        marks[:, 0] = 0.0
        marks[ends[torch.arange(len(ends)), (batch.answers + 1) % 4], 0] = 1.0
        assert float(probe(marks, batch)) == pytest.approx(50.0, rel=0.01)


def test_trained_embeddings_compare_histories_with_answers(documents):
    """Nearest option, by the definition, before and after; the table keeps its size."""

    def nearest() -> float:
        weight = documents.lm.model.get_input_embeddings().weight.detach()
        rows = np.flatnonzero(documents.for_vectors)
        pairs = documents.pairs[documents.owner[rows]]
        histories = [history_items(documents.store, int(u), int(c), documents.questions.n_history) for u, c in pairs]
        means = torch.stack(
            [weight[torch.from_numpy(documents.vectors.tokens.of(items))].mean(0) for items in histories]
        )
        tokens = [ids for row in rows for ids in documents.option_tokens(int(row))]
        options = torch.stack([weight[torch.from_numpy(ids)].mean(0) for ids in tokens]).view(len(rows), 4, -1)
        scores = ((means - means.mean(0))[:, None] * options).sum(-1)
        return float((scores.argmax(1).numpy() == documents.questions.answer[rows]).mean())

    size = documents.lm.model.get_input_embeddings().weight.detach().square().mean()
    before = nearest()
    reported = train_embeddings([documents], 120, seed=0)
    torch.testing.assert_close(documents.lm.model.get_input_embeddings().weight.detach().square().mean(), size)
    assert nearest() > before + 0.1 and reported > 100 * before
    assert train_embeddings([documents], 0, seed=0) == 0.0


def test_rounds_follow_the_seed_alone(documents):
    def shape(batches):
        return [(b.windows, [(g.key, g.prefix.tolist(), g.questions) for g in b.groups]) for b in batches]

    assert shape(documents.batches(3)) == shape(documents.batches(3)) != shape(documents.batches(4))


def test_soft_slots_hold_the_vectors_of_their_windows(documents, small_store, small_train, small_lm):
    """By the definition of history vectors, with mean and spread of all documents; then a marker. The last slot of
    segments+next is what follows."""
    everyone = np.arange(documents.n_train)
    documents.vectors.measure([documents.shown(pair) for pair in everyone], documents.windows)
    windows = token_windows("segments+next")
    groups = documents.groups(everyone, 0, windows)
    assert [np.sum(group.prefix == SOFT) for group in groups] == [8] * len(groups)
    keys = [group.key for group in groups]
    soft, renumbered = documents.soft(DocumentBatch(documents, groups, windows), noise=0.0)
    soft = soft.detach().view(len(groups), 8, -1)
    assert [group.key for group in renumbered] == list(range(len(groups)))
    weight, tokens = small_lm.model.get_input_embeddings().weight.detach(), documents.vectors.tokens
    for place, window in enumerate(windows):
        items = []
        for user, cut in documents.pairs[everyone].tolist():
            history = history_items(small_store, user, cut, small_train.n_history)
            following = small_store.sequence(user)[cut : cut + 10]
            items.append(following if window == NEXT else history if window is None else history[-window:])
        expected = history_vectors(weight, *tokens.bags(items))[keys] + markers(small_lm, (window,))
        torch.testing.assert_close(soft[:, place], expected, rtol=1e-4, atol=1e-5)
    assert not markers(small_lm, (None,)).any() and len(markers(small_lm, windows).unique(dim=0)) == 8


def test_noisy_vectors_are_what_a_regression_predicts(documents):
    """Σ (Σ + N)⁻¹ times the view, and so orthogonal to the error: E[v̂ᵀ(v − v̂)] = 0; less noise, nearer."""
    everyone = np.arange(documents.n_train)
    shown = [documents.shown(pair) for pair in everyone]
    documents.vectors.measure(shown, (None,))
    exact = documents.vectors.of(shown, (None,)).detach()
    torch.manual_seed(0)
    draws = torch.stack([documents.vectors.as_regressed(exact, (None,), 2.0) for _ in range(400)])
    inner, error = (draws * (exact - draws)).sum(-1).mean(), (exact - draws).square().sum(-1).mean()
    assert abs(float(inner)) < 0.05 * float(error)
    nearer = documents.vectors.as_regressed(exact, (None,), 0.1)
    assert float((exact - nearer).square().mean()) < 0.5 * float((exact - draws[0]).square().mean())
    torch.testing.assert_close(documents.vectors.as_regressed(exact, (None,), 0.0), exact, rtol=1e-3, atol=1e-3)


def test_what_comes_next_is_seen_through_more_noise(documents):
    everyone = np.arange(documents.n_train)
    shown = [documents.shown(pair) for pair in everyone]
    torch.manual_seed(0)
    explained = {}
    for window in (None, NEXT):
        documents.vectors.measure(shown, (window,))
        exact = documents.vectors.of(shown, (window,)).detach()
        seen = documents.vectors.as_regressed(exact, (window,), 6.0)
        explained[window] = 1 - float((exact - seen).square().sum() / exact.square().sum())
    assert explained[NEXT] < explained[None] < 1


def test_an_integration_without_windows_is_refused(small_lm, small_store, small_train, templates):
    with pytest.raises(InputError, match="llm.train.integrations has q-former, whose tokens are no means of windows"):
        new_documents(small_lm, small_store, small_train, templates, config(integrations=("q-former",)))


def test_a_few_steps_lower_the_loss(train, tmp_path):
    artifact, _ = train(tmp_path / "x", config(steps=20, token_budget=1024))
    losses = [json.loads(line) for line in (artifact.path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in losses if "loss" in row]
    assert losses[-1] < losses[0] - 0.5


def test_the_model_carries_its_card(train, tmp_path, small_store):
    artifact, _ = train(tmp_path / "x", config())
    lm = LanguageModel.load(artifact.path / "model")
    lm.check_split(small_store.split_hash)
    with pytest.raises(InputError, match="another split"):
        lm.check_split("0" * 64)
    assert lm.card["steps"] == 3 == artifact.json("metrics.json")["steps"]
    assert lm.card["parameters"] == sum(p.numel() for p in lm.model.parameters())
    held_out = lm.card["held_out_accuracy"]["v1"]
    assert {"text20", "text50", "segments", "probe segments", "no-history"} <= set(held_out)
    for scores in held_out.values():
        assert scores == {"n": 0} or (0 <= scores["overall"] <= 100 and scores["n"] > 0)


def test_question_sets_take_turns(train, small_train, tmp_path):
    """Rounds alternate between the sets, and the card has a part for each."""
    halves = [small_train.select(np.arange(len(small_train)) % 2 == part) for part in (0, 1)]
    artifact, _ = train(tmp_path / "x", config(steps=4), *halves)
    assert set(LanguageModel.load(artifact.path / "model").card["held_out_accuracy"]) == {"v1", "v2"}
    assert artifact.content != train(tmp_path / "y", config(steps=4), *halves[::-1])[0].content


def test_equal_seeds_equal_models_and_reuse(train, tmp_path):
    first, reused = train(tmp_path / "a", config())
    assert not reused and train(tmp_path / "a", config())[1]
    assert train(tmp_path / "b", config())[0].content == first.content
    assert train(tmp_path / "c", config(seed=1))[0].content != first.content


def test_an_interrupted_training_goes_on_and_trains_the_table_once(train, tmp_path, monkeypatch):
    """The checkpoint holds the table: the second start spends nothing on it, and the log tells of it once."""
    settings = config(steps=6)
    settings = replace(settings, optim=replace(settings.optim, checkpoint_seconds=0.0))
    whole, _ = train(tmp_path / "a", settings)
    calls = {"table": 0, "loss": 0}

    def counted(*args):
        calls["table"] += 1
        return train_embeddings(*args)

    def breaks_once(*args):
        calls["loss"] += 1
        if calls["loss"] == 4:
            raise KeyboardInterrupt
        return answer_loss(*args)

    monkeypatch.setattr(train_lm_module, "train_embeddings", counted)
    monkeypatch.setattr(train_lm_module, "answer_loss", breaks_once)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", settings)
    resumed, _ = train(tmp_path / "b", settings)
    assert calls["table"] == 1
    assert (resumed.path / "log.jsonl").read_text().count("nearest-option") == 1
    weights = "model/model.safetensors"
    assert (resumed.path / weights).read_bytes() == (whole.path / weights).read_bytes()


def test_no_steps_leave_the_initial_weights(train, tmp_path):
    artifact, _ = train(tmp_path / "x", config(steps=0))
    assert artifact.json("metrics.json")["steps"] == 0
    assert LanguageModel.load(artifact.path / "model").width == 16


def test_questions_about_counts_alone_are_enough(train, small_train, tmp_path):
    """No vector can answer them and no hint shows a count, so all documents are texts without hints."""
    counts = small_train.select(small_train.subtask_names() == "mf")
    artifact, _ = train(tmp_path / "x", config(hint_rounds=1, fade_rounds=1, held_out_users=2), counts)
    assert LanguageModel.load(artifact.path / "model").card["held_out_accuracy"]["v1"]["mean-pooling"] == {"n": 0}


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
