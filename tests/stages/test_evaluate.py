"""Evaluation: answers that re-score to the same metrics, shuffled users, generated text."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from uqabench.errors import InputError, RunError
from uqabench.integrations import find_integration
from uqabench.llm.demo import save_model
from uqabench.questions.scoring import read_predictions, score_files
from uqabench.stages.align import AlignConfig, PromptedMethod, align, load_aligned, prompt_groups
from uqabench.stages.evaluate import EvaluateConfig, _other_users, evaluate, evaluate_baseline, shuffled_keys
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories
from uqabench.stages.training import OptimConfig
from uqabench.vocabulary import LETTERS

ZERO_SHOT = AlignConfig(train=False)


@pytest.fixture(scope="module")
def shown(small_store, pretrained, small_train, small_evaluation, tmp_path_factory):
    built, _ = encode_histories(
        small_store, pretrained["sl"], HistoryPairs.of([small_train, small_evaluation]),
        integration=find_integration("mean-pooling"), token_budget=999, progress=False,
    ).build(tmp_path_factory.mktemp("states") / "x")  # fmt: skip
    return PromptedMethod("trm++", 0, FrozenStates.open(built), built.content)


@pytest.fixture(scope="module")
def aligned(context, shown, tmp_path_factory):
    """An adapter whose tokens are large enough to change answers."""
    settings = replace(ZERO_SHOT, closed_form=True)
    return align(context, shown, settings, progress=False).build(tmp_path_factory.mktemp("aligned") / "x")[0]


def answer(context, shown, aligned, out, **changes):
    stage = evaluate(context, shown, aligned, ZERO_SHOT, EvaluateConfig(**changes), progress=False)
    artifact, reused = stage.build(out)
    return artifact, read_predictions(artifact.path / "predictions.jsonl"), reused


def test_every_question_is_answered_once_by_its_highest_letter(context, shown, aligned, tmp_path):
    questions = context.evaluation
    _, rows, _ = answer(context, shown, aligned, tmp_path / "x")
    assert [row["id"] for row in rows] == list(range(len(questions)))
    for i, row in enumerate(rows):
        assert (row["user"], row["cut"]) == (questions.user[i], questions.cut[i])
        assert row["answer"] == LETTERS[questions.answer[i]] and row["method"] == "trm++"
        assert row["prediction"] == LETTERS[int(np.argmax(row["logits"]))]
    assert len({row["prediction"] for row in rows}) > 1
    training = set(context.store.users("train").tolist())
    assert not training & {row["user"] for row in rows}


def test_predictions_re_score_to_the_same_metrics(context, shown, aligned, tmp_path):
    artifact, rows, _ = answer(context, shown, aligned, tmp_path / "x", seed=5)
    metrics = artifact.json("metrics.json")
    assert score_files([artifact.path / "predictions.jsonl"], seed=5) == {"trm++": metrics}
    right = [row["prediction"] == row["answer"] for row in rows]
    assert metrics["overall"]["accuracy"] == pytest.approx(100 * np.mean(right), abs=1e-4)
    assert metrics["overall"]["n"] == len(rows)
    for subtask, cell in metrics["subtasks"].items():
        mine = [r for r, row in zip(right, rows, strict=True) if row["subtask"] == subtask]
        assert cell["accuracy"] == pytest.approx(100 * np.mean(mine), abs=1e-4) and cell["n"] == len(mine)


def test_tokens_are_those_of_the_prompt(context, shown, aligned, tmp_path):
    artifact, rows, _ = answer(context, shown, aligned, tmp_path / "x")
    lm = context.load_lm()
    prompts = context.builder(lm).encode(context.evaluation, np.arange(len(rows)), n_soft=1)
    assert [row["tokens"] for row in rows] == [len(prompt) for prompt in prompts]
    assert artifact.json("metrics.json")["avg_tokens"] == round(np.mean([len(p) for p in prompts]), 2)


def test_batching_changes_no_answer(context, shown, aligned, tmp_path):
    """One group a batch against all in one."""
    _, small, _ = answer(context, shown, aligned, tmp_path / "a", token_budget=1)
    _, large, _ = answer(context, shown, aligned, tmp_path / "b", token_budget=10**6)
    np.testing.assert_allclose([r["logits"] for r in small], [r["logits"] for r in large], atol=2e-3)
    assert [r["prediction"] for r in small] == [r["prediction"] for r in large]


def test_shuffled_shows_somebody_elses_vector_and_nothing_else(context, shown, aligned, tmp_path):
    _, own, _ = answer(context, shown, aligned, tmp_path / "a")
    _, others, _ = answer(context, replace(shown, name="shuffled"), aligned, tmp_path / "b", shuffle=True)
    assert [r["tokens"] for r in own] == [r["tokens"] for r in others]
    moved = [np.abs(np.subtract(a["logits"], b["logits"])).max() for a, b in zip(own, others, strict=True)]
    assert np.mean(np.array(moved) > 1e-3) > 0.9
    groups = prompt_groups(context, context.load_lm(), context.evaluation, shown, 1)
    swapped = _other_users(groups, shown, context.evaluation, seed=0)
    for before, after in zip(groups, swapped, strict=True):
        assert shown.states.pairs.users[before.key] != shown.states.pairs.users[after.key]
        assert shown.states.pairs.users[after.key] in set(context.evaluation.user)
        assert before.questions == after.questions and np.array_equal(before.prefix, after.prefix)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 50))
def test_everyone_gets_another_users_pair(users, seed):
    users = np.array(users)
    other = shuffled_keys(users, seed)
    assert len(other) == len(users) and ((0 <= other) & (other < len(users))).all()
    if len(np.unique(users)) > 1:
        assert (users[other] != users).all()
        assert len(np.unique(users[other])) == len(np.unique(users))  # and nobody is shown to two
    assert np.array_equal(other, shuffled_keys(users, seed))


def test_the_partner_depends_on_the_seed():
    users = np.repeat(np.arange(20), 2)
    assert not np.array_equal(shuffled_keys(users, 0), shuffled_keys(users, 1))


def test_settings_belong_to_the_key(context, shown, aligned, tmp_path):
    assert not answer(context, shown, aligned, tmp_path / "x")[2]
    assert answer(context, shown, aligned, tmp_path / "x")[2]
    assert not answer(context, shown, aligned, tmp_path / "x", seed=1)[2]
    assert not answer(context, replace(shown, n_text=3), aligned, tmp_path / "x")[2]


@pytest.mark.parametrize("change", ["language", "system", "dtype"])
def test_asking_a_zero_shot_model_otherwise_is_another_evaluation(context, tmp_path, change):
    """Its alignment trains nothing, so nothing of the prompt is in the alignment's files."""
    method = PromptedMethod("text8@zero-shot", 8)
    changes = {
        "language": {"prompt": replace(context.prompt, language="zh")},
        "system": {"system": "Answer with a letter."},
        "dtype": {"dtype": "bfloat16"},
    }
    logits = []
    for asked in (context, replace(context, **changes[change])):
        artifact, _ = align(asked, method, ZERO_SHOT, progress=False).build(tmp_path / "align")
        _, rows, reused = answer(asked, method, artifact, tmp_path / "evaluate")
        assert not reused
        logits.append([row["logits"] for row in rows])
    assert np.abs(np.subtract(*logits)).max() > 1e-3


def test_a_model_whose_logits_are_no_numbers_is_refused_before_anything(context, tmp_path, make_lm):
    lm = make_lm()
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(float("inf"))
    save_model(lm.model, lm.tokenizer, tmp_path / "broken")
    broken = replace(context, llm=str(tmp_path / "broken"))
    with pytest.raises(InputError, match="gives logits that are not finite: choose another llm.dtype"):
        align(broken, PromptedMethod("text8", 8), ZERO_SHOT, progress=False).build(tmp_path / "align")
    assert not (tmp_path / "align").exists()


def test_logits_that_are_no_numbers_fail_the_run(context, shown, tmp_path):
    artifact, _ = align(context, shown, ZERO_SHOT, progress=False).build(tmp_path / "align")
    weights = load_file(artifact.path / "adapter.safetensors")
    save_file(
        {name: torch.full_like(w, float("inf")) for name, w in weights.items()}, artifact.path / "adapter.safetensors"
    )
    with pytest.raises(RunError, match=r"evaluate trm\+\+: question \d+ got a logit that is not finite"):
        answer(context, shown, artifact, tmp_path / "x")
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.work").exists()


def test_a_stray_model_in_an_aligned_folder_is_not_loaded(context, shown, make_lm, tmp_path):
    artifact, _ = align(context, shown, ZERO_SHOT, progress=False).build(tmp_path / "align")
    other = make_lm("llama")
    save_model(other.model, other.tokenizer, artifact.path / "llm")
    with pytest.raises(InputError, match=r"llm/\S+ was not written by this run, .* remove it"):
        answer(context, shown, artifact, tmp_path / "x")


def test_a_stray_file_beside_a_trained_model_is_not_loaded(context, tmp_path):
    method = PromptedMethod("text8", 8)
    settings = AlignConfig(optim=OptimConfig(epochs=1, max_steps=1))
    artifact, _ = align(context, method, settings, progress=False).build(tmp_path / "align")
    load_aligned(context, method, artifact, settings)
    (artifact.path / "llm" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match=r"llm/model.safetensors.index.json was not written by this run"):
        load_aligned(context, method, artifact, settings)


@pytest.fixture(scope="module")
def letter_lover(make_lm, tmp_path_factory):
    """A model that says a letter most of the time: the other tokens' output weights are turned down."""
    lm = make_lm("llama")
    with torch.no_grad():
        head = lm.model.get_output_embeddings().weight
        others = torch.ones(len(head), dtype=torch.bool)
        others[lm.letter_ids] = False
        head[others] *= 0.3
    folder = tmp_path_factory.mktemp("letters") / "model"
    save_model(lm.model, lm.tokenizer, folder)
    return str(folder)


def test_generated_text_is_scored_by_how_it_starts(context, letter_lover, tmp_path):
    few = replace(context, llm=letter_lover, evaluation=context.evaluation.select(np.arange(24)))
    method = PromptedMethod("no-history")
    artifact, _ = align(few, method, ZERO_SHOT, progress=False).build(tmp_path / "align")
    _, by_logits, _ = answer(few, method, artifact, tmp_path / "logits")
    generated, rows, _ = answer(few, method, artifact, tmp_path / "text", generate=True)
    letters = [row["text"] in LETTERS for row in rows]
    assert sum(letters) >= 6
    for row, logit_row, is_letter in zip(rows, by_logits, letters, strict=True):
        if is_letter:
            assert row["text"] == row["prediction"] == logit_row["prediction"]
        assert row["prediction"] == (row["text"][0] if row["text"][:1] in LETTERS and row["text"] else "")
    right = [row["text"].startswith(row["answer"]) for row in rows]
    metrics = generated.json("metrics.json")
    assert metrics["rule"] == "starts-with"
    assert metrics["overall"]["accuracy"] == pytest.approx(100 * np.mean(right), abs=1e-4)
    again = score_files([generated.path / "predictions.jsonl"], rule="starts-with", seed=0)
    assert again["no-history"] == metrics


def test_baselines_are_evaluated_without_a_model(context, tmp_path):
    inputs = {"questions": "q", "data": "d"}
    accuracy = {}
    for name in ("uniform", "majority", "popularity", "seen-option", "oracle"):
        artifact, _ = evaluate_baseline(
            context.store, name, context.train, context.evaluation, inputs, EvaluateConfig()
        ).build(tmp_path / name)
        rows = read_predictions(artifact.path / "predictions.jsonl")
        assert len(rows) == len(context.evaluation) and {row["tokens"] for row in rows} == {0}
        assert all("logits" not in row for row in rows)
        accuracy[name] = artifact.json("metrics.json")["overall"]["accuracy"]
        assert artifact.manifest["inputs"] == inputs
    assert accuracy["oracle"] == 100.0 and max(accuracy.values()) == 100.0
    assert json.loads((tmp_path / "oracle" / "metrics.json").read_text())["avg_tokens"] == 0


def test_cyclic_orders_average_an_options_logits(context, shown, aligned, tmp_path):
    """Each order answered alone, by hand, and then the mean: a preference for a letter falls on every option alike."""
    _, rows, _ = answer(context, shown, aligned, tmp_path / "four", permutations=4)
    by_option = []
    for steps in range(4):
        turned = replace(context, evaluation=context.evaluation.rotated(steps))
        _, each, _ = answer(turned, shown, aligned, tmp_path / f"{steps}")
        assert [LETTERS[(LETTERS.index(row["answer"]) + steps) % 4] for row in rows] == [row["answer"] for row in each]
        by_option.append([[row["logits"][(option + steps) % 4] for option in range(4)] for row in each])
    mean = np.mean(by_option, axis=0)
    np.testing.assert_allclose([row["logits"] for row in rows], mean, atol=2e-4)
    assert [row["prediction"] for row in rows] == [LETTERS[int(np.argmax(row["logits"]))] for row in rows]
    assert [row["answer"] for row in rows] == [LETTERS[letter] for letter in context.evaluation.answer]
    assert not np.allclose(mean, by_option[0], atol=1e-3)


def test_a_rotated_question_asks_the_same(small_evaluation):
    turned = small_evaluation.rotated(3)
    for i in range(len(turned)):
        options = small_evaluation.options(i)
        assert turned.options(i) == [*options[1:], options[0]]
        assert turned.option(i, turned.answer[i]) == small_evaluation.option(i, small_evaluation.answer[i])
    assert (turned.rotated(1).answer == small_evaluation.answer).all()


def test_orders_and_generated_text_are_one_or_the_other():
    with pytest.raises(InputError, match="permutations averages logits, which `generate` does not use"):
        EvaluateConfig(generate=True, permutations=4)
