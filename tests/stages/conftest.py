"""Stages on the small log: pre-trained encoders, their frozen states, and the context that prompted methods share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uqabench.artifact import Artifact
from uqabench.encoders import UserEncoderConfig
from uqabench.integrations import find_integration
from uqabench.llm.demo import save_model
from uqabench.llm.prompts import PromptConfig
from uqabench.stages.align import Context, PromptedMethod
from uqabench.stages.pretrain import PretrainConfig, pretrain
from uqabench.stages.states import FrozenStates, HistoryPairs, encode_histories
from uqabench.stages.training import OptimConfig


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """For every test: numba, which the fixtures use to generate questions, sets the process's number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pretrain_config():
    """Pre-training in a dozen steps; keyword arguments replace settings."""

    def make(encoder: str = "trm++", inputs: str = "full", **changes) -> PretrainConfig:
        optim = OptimConfig(lr=5e-3, epochs=changes.pop("epochs", 2), checkpoint_seconds=1e9)
        defaults = {"length": 24, "batch_size": 32, "token_budget": 384, "optim": optim}
        shape = UserEncoderConfig(encoder=encoder, preset="tiny", inputs=inputs)
        return PretrainConfig(encoder=shape, **{**defaults, **changes})

    return make


@pytest.fixture(scope="session")
def pretrained(small_store, pretrain_config, tmp_path_factory) -> dict[str, Artifact]:
    """A causal encoder trained with each objective."""
    folder = tmp_path_factory.mktemp("pretrained")
    configs = {"sl": pretrain_config(), "cl": pretrain_config("hstu", objective="cl")}
    return {name: pretrain(small_store, c, progress=False).build(folder / name)[0] for name, c in configs.items()}


@pytest.fixture(scope="session")
def model_folder(small_lm, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "model"
    save_model(small_lm.model, small_lm.tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def context(small_store, small_train, small_evaluation, templates, model_folder) -> Context:
    inputs = {"data": small_store.content_hash}
    return Context(
        small_store, small_train, small_evaluation, templates, PromptConfig(), str(model_folder), inputs=inputs
    )


@pytest.fixture(scope="session")
def method(small_store, pretrained, small_train, small_evaluation, tmp_path_factory):
    """`method(integration)`: the frozen SL encoder as a prompted method."""
    folder = tmp_path_factory.mktemp("states")

    def make(name="mean-pooling"):
        integration = find_integration(name)
        built, _ = encode_histories(
            small_store,
            pretrained["sl"],
            HistoryPairs.of([small_train, small_evaluation]),
            integration=integration,
            token_budget=999,
            progress=False,
        ).build(folder / integration.kept)
        return PromptedMethod("trm++", 0, FrozenStates.open(built), built.content)

    return make
