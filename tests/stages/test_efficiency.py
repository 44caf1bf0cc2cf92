"""What a method costs: token counts against the prompts themselves, and what decides a measurement."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from uqabench.integrations import find_integration
from uqabench.settings.efficiency import EfficiencyConfig
from uqabench.settings.stages import AlignConfig, EvaluateConfig
from uqabench.stages.align import PromptedMethod, align
from uqabench.stages.efficiency import EncoderCost, measure_costs
from uqabench.stages.evaluate import evaluate
from uqabench.stages.export import export_prompts, rows_of_users
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories

FEW = EfficiencyConfig(prompts=2, batches=(3,), tokenizer=None)


@pytest.fixture(scope="module")
def encoded(small_store, pretrained, small_train, small_evaluation, tmp_path_factory):
    """`encoded(integration)`: the frozen states that it reads."""
    folder = tmp_path_factory.mktemp("states")

    def make(integration):
        name = find_integration(integration)
        pairs = HistoryPairs.of([small_train, small_evaluation])
        stage = encode_histories(
            small_store, pretrained["sl"], pairs, integration=name, token_budget=999, progress=False
        )
        built, _ = stage.build(folder / name.kept)
        return FrozenStates.open(built), built.content

    return make


@pytest.fixture(scope="module")
def measured(context, encoded, tmp_path_factory):
    """`measured(integration, place, n_text)`: costs of a method of untrained weights, its artefact, and how it asks."""
    folder = tmp_path_factory.mktemp("costs")

    def make(integration=None, place="before-chat", n_text=0):
        name = f"{integration}-{place}-{n_text}"
        asking = replace(context, prompt=replace(context.prompt, soft_prompt_place=place))
        settings = AlignConfig(train=False, closed_form=integration == "mean-pooling")
        settings = replace(settings, integration=integration) if integration else settings
        method = PromptedMethod(name, n_text, *encoded(integration)) if integration else PromptedMethod(name, n_text)
        aligned, _ = align(asking, method, settings, progress=False).build(folder / f"{name}-align")
        stage = measure_costs(asking, method, aligned, settings, EvaluateConfig(), FEW, EncoderCost(0.5, 7))
        return stage.build(folder / name)[0].json("costs.json"), (asking, method, aligned, settings)

    return make


def lengths(asking, method, n_soft):
    lm = asking.load_lm()
    rows = np.arange(len(asking.evaluation))
    return np.array(
        [len(p) for p in asking.builder(lm).encode(asking.evaluation, rows, n_text=method.n_text, n_soft=n_soft)]
    )


def test_tokens_are_those_of_the_prompts(measured):
    costs, (asking, method, _, _) = measured("mean-pooling")
    of_prompts = lengths(asking, method, 1)
    assert costs["tokens"]["input"] == {"mean": of_prompts.mean(), "p95": np.quantile(of_prompts, 0.95)}
    assert costs["tokens"]["soft"] == 1 and costs["encoder"] == {"seconds": 0.5, "parameters": 7}
    assert 0 < costs["tokens"]["computed"] < of_prompts.mean()
    assert set(costs["questions_per_second"]) == {"1", "3"} and str(costs["best_batch"]) in {"1", "3"}
    for name in (
        "prompt_flops",
        "cache_bytes",
        "peak_bytes",
        "peak_bytes_best_batch",
        "evaluation_questions_per_second",
    ):
        assert costs[name] > 0, name


def test_a_q_former_takes_fifteen_tokens_more_than_a_mean(measured):
    (mean, _), (q_former, _) = measured("mean-pooling"), measured("q-former")
    assert q_former["tokens"]["input"]["mean"] - mean["tokens"]["input"]["mean"] == 15


def test_what_users_share_depends_on_where_the_soft_prompt_stands(measured):
    first, before, last = (
        measured("mean-pooling", place)[0]["tokens"] for place in ("before-chat", "before-question", "last")
    )
    assert first["shared_by_users"] == 0 < before["shared_by_users"] <= last["shared_by_users"]
    assert first["input"] == before["input"] == last["input"]


def test_a_hybrid_prompt_is_text_and_a_soft_prompt(measured):
    (hybrid, _), (text, _) = measured("mean-pooling", n_text=5), measured(n_text=5)
    assert hybrid["tokens"]["input"]["mean"] == text["tokens"]["input"]["mean"] + 1
    assert text["tokens"]["soft"] == 0 and hybrid["tokens"]["soft"] == 1


def test_prices_are_no_part_of_a_measurement(context, measured):
    _, (asking, method, aligned, settings) = measured("mean-pooling")

    def key(config):
        return measure_costs(asking, method, aligned, settings, EvaluateConfig(), config).key

    assert key(FEW) == key(replace(FEW, prices={"input": 2.0})) != key(replace(FEW, prompts=3))


@pytest.mark.parametrize(
    ("integration", "place", "n_text"),
    [("mean-pooling", "last", 0), ("q-former", "before-question", 5), (None, "before-chat", 5)],
)
def test_exported_prompts_have_the_logits_of_the_evaluation(measured, tmp_path, integration, place, n_text):
    """Through transformers' own `inputs_embeds`, for every place of the soft prompt, hybrids and text."""
    _, (asking, method, aligned, settings) = measured(integration, place, n_text)
    built, _ = evaluate(asking, method, aligned, settings, EvaluateConfig(), progress=False).build(
        tmp_path / "evaluated"
    )
    stored = [json.loads(line) for line in (built.path / "predictions.jsonl").read_text().splitlines()]
    users = tuple(sorted({row["user"] for row in stored})[:3])
    out = tmp_path / "out"
    out.mkdir()
    rows = rows_of_users(asking, users)
    about = export_prompts(asking, method, aligned, settings, rows, out, "the model")
    lines = [json.loads(line) for line in (out / "prompts.jsonl").read_text().splitlines()]
    assert about["prompts"] == len(lines) == len(rows) > 2 and {line["user"] for line in lines} == set(users)
    model = asking.load_lm(aligned.path / "llm" if (aligned.path / "llm").exists() else None).model
    tensors = load_file(out / "prompts-0000.safetensors")
    letters = list(about["letters"].values())
    for line in lines:
        with torch.no_grad():
            logits = model(inputs_embeds=tensors[line["tensor"]][None]).logits[0, -1, letters]
        assert len(tensors[line["tensor"]]) == line["tokens"] == stored[line["id"]]["tokens"]
        np.testing.assert_allclose(logits.numpy(), stored[line["id"]]["logits"], atol=2e-4)
    assert line["question"].count("\n") >= 4 and "enable_prompt_embeds" in (out / "README.md").read_text()
