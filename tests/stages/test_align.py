"""Alignment: what is trained and what is not, the closed-form start, and what a soft prompt is made of."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import uqabench.llm.prompts as prompts_module
import uqabench.stages.align as align_module
from uqabench.errors import InputError
from uqabench.integrations import find_integration, integration_names
from uqabench.llm.batches import answer_loss, batch_hidden, collate
from uqabench.llm.demo import save_model
from uqabench.llm.history import HistoryTokens, history_vectors
from uqabench.llm.language_model import LanguageModel
from uqabench.questions.render import history_items
from uqabench.stages.align import (
    AlignConfig,
    PromptedMethod,
    SoftPrompts,
    align,
    check_prompts,
    check_training,
    load_aligned,
    prompt_groups,
    soft_for,
    training_histories,
)
from uqabench.stages.training import OptimConfig


def config(**changes):
    optim = OptimConfig(lr=changes.pop("lr", 2e-3), epochs=changes.pop("epochs", 1), checkpoint_seconds=1e9)
    return AlignConfig(**{"batch_questions": 32, "token_budget": 4096, "optim": optim, **changes})


def training_loss(context, method, artifact, settings):
    """Loss per training question of what `align` left behind."""
    lm, soft = load_aligned(context, method, artifact, settings)
    n_soft = soft.n_tokens if soft else 0
    groups = prompt_groups(context, lm, context.train, method, n_soft)
    with torch.no_grad():
        vectors, renumbered = soft_for(soft, groups)
        batch = collate(renumbered, lm, n_soft, with_answers=True)
        return float(answer_loss(lm, batch, batch_hidden(lm, batch, vectors)))


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("integration", ["mean-pooling", "q-former"])
@pytest.mark.parametrize("strategy", ["adapter", "full", "lora"])
def test_training_lowers_the_loss_of_what_it_may_change(context, method, tmp_path, integration, strategy):
    shown = method(integration)
    settings = config(integration=integration, strategy=strategy, n_queries=2, epochs=3)
    start, _ = align(context, shown, replace(settings, train=False), progress=False).build(tmp_path / "start")
    artifact, _ = align(context, shown, settings, progress=False).build(tmp_path / "x")
    assert training_loss(context, shown, artifact, settings) < training_loss(context, shown, start, settings) - 0.05
    assert (artifact.path / "llm").exists() == (strategy == "full")
    assert (artifact.path / "lora").exists() == (strategy == "lora")
    if strategy == "full":
        before, after = weights(Path(context.llm)), weights(artifact.path / "llm")
        assert before.keys() == after.keys()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert len(changed) > 0.9 * len(before)
    steps = artifact.json("metrics.json")["steps"]
    rows = [json.loads(line) for line in (artifact.path / "log.jsonl").read_text().splitlines()]
    assert steps == rows[-1]["step"] == 3 * rows[0]["step"] > 0


def test_text_methods_train_the_language_model_whatever_the_strategy(context, tmp_path):
    shown = PromptedMethod("text8", 8)
    settings = config(strategy="adapter")
    artifact, _ = align(context, shown, settings, progress=False).build(tmp_path / "x")
    start, _ = align(context, shown, replace(settings, train=False), progress=False).build(tmp_path / "zero")
    assert (artifact.path / "llm").exists() and not (artifact.path / "adapter.safetensors").exists()
    assert not (start.path / "llm").exists() and start.json("metrics.json") == {"steps": 0}
    assert training_loss(context, shown, artifact, settings) < training_loss(context, shown, start, settings)


def test_the_loaded_model_is_the_trained_one_and_keeps_its_card(context, tmp_path):
    lm = LanguageModel.load(context.llm)
    folder = tmp_path / "carded"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps({"split_hash": context.store.split_hash}))
    carded = replace(context, llm=str(folder))
    artifact, _ = align(carded, PromptedMethod("text8", 8), config(), progress=False).build(tmp_path / "x")
    loaded, _ = load_aligned(carded, PromptedMethod("text8", 8), artifact, config())
    assert loaded.card == {"split_hash": context.store.split_hash}
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    foreign = replace(carded, store=replace(context.store, split_hash="f" * 64))
    with pytest.raises(InputError, match="another split"):
        align(foreign, PromptedMethod("text8", 8), config(lr=1e-3), progress=False).build(tmp_path / "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["carded", "x"]


def test_equal_settings_equal_bytes(context, method, tmp_path):
    contents = []
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 1})):
        artifact, _ = align(context, method(), config(strategy="full", **changes), progress=False).build(
            tmp_path / name
        )
        contents.append(artifact.content)
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(
    "change",
    [{"prompt": {"language": "zh"}}, {"system": "Be brief."}, {"dtype": "bfloat16"}],
)
def test_the_way_of_asking_belongs_to_the_key(context, tmp_path, change):
    if "prompt" in change:
        change = {"prompt": replace(context.prompt, **change["prompt"])}
    settings = config(train=False)
    align(context, PromptedMethod("text8", 8), settings, progress=False).build(tmp_path / "x")
    _, reused = align(context, PromptedMethod("text8", 8), settings, progress=False).build(tmp_path / "x")
    assert reused
    _, reused = align(replace(context, **change), PromptedMethod("text8", 8), settings, progress=False).build(
        tmp_path / "x"
    )
    assert not reused


def test_a_template_that_writes_the_time_makes_a_new_key_once_a_context(context, small_lm, tmp_path):
    folder = tmp_path / "dated"
    save_model(small_lm.model, small_lm.tokenizer, folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%H:%M:%S.%f') }}" + template)
    dated, settings = replace(context, llm=str(folder)), config(train=False)
    for ask, expected in ((dated, False), (dated, True), (replace(dated), False)):
        _, reused = align(ask, PromptedMethod("text8", 8), settings, progress=False).build(tmp_path / "x")
        assert reused == expected
        assert ask.load_lm().chat == ask.chat  # every model of a run is asked alike, past midnight too


def test_half_precision_weights_move_as_those_of_float32(context, tmp_path):
    shown, settings = PromptedMethod("text8", 8), config(lr=1e-4, epochs=3)
    losses, stored = {}, {}
    for dtype in ("float32", "bfloat16"):
        artifact, _ = align(replace(context, dtype=dtype), shown, settings, progress=False).build(tmp_path / dtype)
        rows = [json.loads(line) for line in (artifact.path / "log.jsonl").read_text().splitlines()]
        losses[dtype] = rows[-1]["loss"]
        stored[dtype] = weights(artifact.path / "llm")
    assert {weight.dtype for weight in stored["bfloat16"].values()} == {torch.bfloat16}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)
    start = weights(Path(context.llm))
    for name, before in start.items():
        moved = [(stored[dtype][name].float() - before).norm() for dtype in stored]
        if before.dim() > 1:
            assert not torch.equal(stored["bfloat16"][name], before.bfloat16()), name
            assert float(moved[1]) > 0.3 * float(moved[0]) > 0, name


def test_float16_is_refused_where_the_language_model_trains(context, method, tmp_path):
    half = replace(context, dtype="float16")
    for shown, settings, way_out in (
        (PromptedMethod("text8", 8), config(), "text8@zero-shot"),
        (method(), config(strategy="full"), "align.strategy=adapter"),
    ):
        with pytest.raises(InputError, match=rf"{re.escape(shown.name)} trains .* llm.dtype=bfloat16.*{way_out}"):
            align(half, shown, settings, progress=False).build(tmp_path / "x")
    check_training("trm++", config(strategy="adapter"), "float16", has_states=True)
    check_training("text8", config(train=False), "float16", has_states=False)
    assert list(tmp_path.iterdir()) == []


def test_prompts_beyond_the_models_positions_stop_before_training(context, tmp_path, make_lm):
    lm = make_lm()
    lm.model.config.max_position_embeddings = 240
    save_model(lm.model, lm.tokenizer, tmp_path / "short")
    short = replace(context, llm=str(tmp_path / "short"))
    message = r"text24: the longest prompt has \d+ tokens with its answer, more than the 240 positions of the language"
    for stop in (
        lambda: check_prompts(short, short.load_lm(), "text24", config(), n_text=24, has_states=False),
        lambda: align(short, PromptedMethod("text24", 24), config(), progress=False).build(tmp_path / "x"),
    ):
        with pytest.raises(InputError, match=message):
            stop()
    check_prompts(short, short.load_lm(), "trm++", config(), n_text=0, has_states=True)
    with pytest.raises(InputError, match=r"trm\+\+: the longest prompt"):
        many = config(integration="q-former", n_queries=40)
        check_prompts(short, short.load_lm(), "trm++", many, n_text=0, has_states=True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("n_text", [0, 5, 24])
def test_the_longest_prompt_is_found_among_a_few(context, n_text, monkeypatch):
    builder = context.builder(context.load_lm())
    every = builder.encode(context.train, np.arange(len(context.train)), n_text=n_text, n_soft=2)
    assert builder.longest(context.train, n_text=n_text, n_soft=2) == max(map(len, every))
    monkeypatch.setattr(prompts_module, "_LONGEST", 20)
    assert builder.longest(context.train, n_text=n_text, n_soft=2) >= 0.97 * max(map(len, every))


def test_the_closed_form_start_reduces_the_error(context, method, tmp_path):
    """Against the mean token embedding of each training history's text, from a fresh adapter and from their mean."""
    shown = method()
    lm = context.load_lm()
    torch.manual_seed(0)
    soft = SoftPrompts(shown.states, config(), lm)
    pairs = np.unique(shown.states.pairs.keys(context.train))
    histories = [
        history_items(context.store, int(u), int(c), context.train.n_history)
        for u, c in sorted({(int(u), int(c)) for u, c in zip(context.train.user, context.train.cut, strict=True)})
    ]
    weight = lm.model.get_input_embeddings().weight.detach()
    targets = history_vectors(weight, *HistoryTokens(lm, context.builder(lm)).bags(histories))

    def error():
        with torch.no_grad():
            return float((soft(pairs) - targets).square().mean())

    before = error()
    metrics = soft.integration.initialise(soft.adapter, training_histories(context, lm, soft))
    after = error()
    from_the_mean = float((targets - targets.mean(0)).square().mean())
    assert after < before and after < from_the_mean
    assert metrics["ridge_r_squared"] == pytest.approx(1 - after / from_the_mean, abs=1e-3)
    artifact, _ = align(context, shown, config(closed_form=True, train=False), progress=False).build(tmp_path / "x")
    assert artifact.json("metrics.json")["ridge_r_squared"] == pytest.approx(metrics["ridge_r_squared"], rel=1e-4)


def test_soft_prompts_are_the_adapter_over_each_pairs_own_states(method, small_lm):
    for name in integration_names():
        settings = config(integration=name, n_queries=3)
        soft = SoftPrompts(method(name).states, settings, small_lm)
        assert soft.n_tokens == find_integration(name).n_tokens(settings)
        pairs = np.array([5, 0, 17])
        with torch.no_grad():
            together = soft(pairs)
            for place, pair in enumerate(pairs):
                one = soft(np.array([pair]))
                part = together[place * soft.n_tokens : (place + 1) * soft.n_tokens]
                torch.testing.assert_close(part, one, rtol=1e-4, atol=1e-5)
        assert together.shape == (3 * soft.n_tokens, small_lm.width)


def test_an_adapter_over_what_another_integration_kept_is_refused(method, small_lm):
    with pytest.raises(InputError, match="q-former reads 'states', but of the encoder's output 'mean' was kept"):
        SoftPrompts(method("mean-pooling").states, config(integration="q-former"), small_lm)


def test_an_adapter_of_another_shape_is_refused(context, method, tmp_path):
    shown, settings = method("q-former"), config(integration="q-former", n_queries=2, train=False)
    artifact, _ = align(context, shown, settings, progress=False).build(tmp_path / "x")
    with pytest.raises(InputError, match="adapter.safetensors does not fit q-former .*: delete .*x"):
        load_aligned(context, shown, artifact, replace(settings, n_queries=3))


def test_a_q_former_starts_at_the_size_of_the_models_tokens(context, method, tmp_path):
    """Soft tokens much smaller or larger than token embeddings are noise, or all that the first layer sees."""
    shown = method("q-former")
    artifact, _ = align(context, shown, config(integration="q-former", train=False, n_queries=4), progress=False).build(
        tmp_path / "x"
    )
    settings = config(integration="q-former", n_queries=4)
    lm, soft = load_aligned(context, shown, artifact, settings)
    tokens = lm.model.get_input_embeddings().weight
    with torch.no_grad():
        ratio = soft(np.arange(8)).square().mean().sqrt() / tokens.square().mean().sqrt()
    assert 0.5 < float(ratio) < 2


def test_questions_about_one_history_share_a_group(context, method):
    shown = method()
    lm = context.load_lm()
    groups = prompt_groups(context, lm, context.evaluation, shown, 1)
    asked = sorted(question for group in groups for question in group.questions)
    assert asked == list(range(len(context.evaluation)))
    for group in groups:
        pairs = {(context.evaluation.user[q], context.evaluation.cut[q]) for q in group.questions}
        assert pairs == {(shown.states.pairs.users[group.key], shown.states.pairs.cuts[group.key])}
        assert [context.evaluation.answer[q] for q in group.questions] == group.answers
    # The text method forms the same groups, whatever its keys.
    text = prompt_groups(context, lm, context.evaluation, PromptedMethod("text8", 8), 0)
    assert sorted(map(tuple, (g.questions for g in groups))) == sorted(map(tuple, (g.questions for g in text)))


def test_prompts_are_encoded_once_for_methods_that_differ_in_their_vectors_alone(context, monkeypatch):
    ask, lm, encoded = replace(context), context.load_lm(), []
    encode = prompts_module.PromptBuilder.encode
    monkeypatch.setattr(
        prompts_module.PromptBuilder, "encode", lambda *given, **asked: encoded.append(asked) or encode(*given, **asked)
    )

    def prompts(questions, n_text=0, n_soft=1, lm=lm):
        found = ask.prompts(lm, questions, n_text=n_text, n_soft=n_soft)
        expected = encode(context.builder(lm), questions, np.arange(len(questions)), n_text=n_text, n_soft=n_soft)
        assert len(found) == len(expected) and all(map(np.array_equal, found, expected))
        assert not any(prompt.flags.writeable for prompt in found)
        return found

    train, evaluation = prompts(context.train), prompts(context.evaluation)
    assert prompts(context.train) is train and prompts(context.evaluation) is evaluation and len(encoded) == 2
    assert prompts(context.evaluation, n_soft=2) is not evaluation and len(encoded) == 3
    assert prompts(context.train) is not train, "more than two sets stay"
    last = prompts(context.train, n_text=3)
    other = replace(lm, name="one with a tokenizer of its own")
    assert prompts(context.train, n_text=3, lm=other) is not last and prompts(context.train, n_text=3) is last
    monkeypatch.setattr(align_module, "KEPT_TOKENS", 10)
    assert prompts(context.train, n_text=4) is not prompts(context.train, n_text=4)
