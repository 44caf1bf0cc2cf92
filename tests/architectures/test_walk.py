"""Questions are laid out rightly for every causal architecture, and docs/methods.md tells how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.utils import logging

from tests.architectures.__main__ import documented
from tests.architectures.tiny import build, tiny_config
from tests.architectures.walk import OWN, REFUSED, SHARED, TEXTS, architectures, compare, walk
from uqabench.errors import InputError
from uqabench.llm.demo import train_tokenizer
from uqabench.llm.language_model import LanguageModel

DOZEN = {
    "qwen2": SHARED,
    "gpt2": SHARED,  # learned positions
    "opt": SHARED,  # learned positions from 2 on, a body inside the body
    "gemma": SHARED,  # embeddings times √width
    "granite": SHARED,  # factors of input and head
    "cohere": SHARED,
    "gemma3_text": OWN,  # windows, two kinds of rotary embedding
    "bloom": OWN,  # ALiBi
    "falcon (ALiBi)": OWN,
    "mamba": OWN,
    "falcon_h1": OWN,
    "qwen3_next": OWN,
    "lfm2": OWN,  # convolutions
    "deepseek_v4": REFUSED,  # needs token ids beside embeddings
}


@pytest.fixture(autouse=True)
def quietly():
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    yield
    logging.set_verbosity(before)


@pytest.mark.parametrize("name", DOZEN)
def test_answers_are_those_of_the_models_own_forward_pass(name):
    if name not in architectures():
        pytest.skip(f"this transformers has no {name}")
    verdict = walk(name)
    assert verdict.rows == DOZEN[name]
    assert verdict == documented().get(name, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(architectures()) - set(DOZEN)))
@pytest.mark.filterwarnings("ignore")
def test_every_other_architecture(name):
    verdict = walk(name)
    assert verdict == documented().get(name, verdict)


def test_the_table_lists_every_architecture():
    if found := documented():
        assert sorted(found) == architectures()


def language_model(config):
    return LanguageModel("tiny", build(config), train_tokenizer(TEXTS, 400))


def test_rows_are_shared_up_to_a_window_and_prompts_beyond_it_stand_alone():
    config = tiny_config("gemma3_text")
    config.sliding_window = 70
    lm = language_model(config)
    assert (lm.layout.shared, lm.layout.max_row_tokens) == (True, 70)
    compare(lm)
    compare(lm, (60, 20, 30))  # the first is longer than the window


def test_a_window_beyond_what_is_compared_still_bounds_the_rows():
    config = tiny_config("mistral")
    config.sliding_window = 4096
    lm = language_model(config)
    prompts = [np.arange(1500)] * 3
    groups = lm.layout.group(prompts, np.zeros(3), np.zeros(3, int), np.arange(3), 1)
    assert [len(group.questions) for group in groups] == [3]  # 1499 shared tokens and three ends
    apart = [np.arange(1500) + i for i in range(3)]
    groups = lm.layout.group(apart, np.zeros(3), np.zeros(3, int), np.arange(3), 1)
    assert [len(group.questions) for group in groups] == [2, 1] and not groups[0].own_mask
    groups = lm.layout.group([*apart, np.arange(4096)], np.zeros(4), np.zeros(4, int), np.arange(4), 1)
    assert [len(group.questions) for group in groups] == [1] * 4 and all(group.own_mask for group in groups)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "shared"), [("qwen2", True), ("granite", True), ("qwen3_next", False), ("mpt", False)]
)
def test_the_layout_is_the_same_in_half_precision(name, shared, dtype):
    lm = language_model(tiny_config(name))
    lm.model.to(dtype)
    assert lm.layout.shared == shared


def test_finding_the_layout_leaves_the_model_and_the_random_numbers_as_they_were():
    lm = language_model(tiny_config("qwen2"))
    lm.model.train()
    before = torch.get_rng_state(), [p.clone() for p in lm.model.parameters()]
    _ = lm.layout
    assert torch.equal(before[0], torch.get_rng_state()) and lm.model.training
    assert all(torch.equal(a, b) for a, b in zip(before[1], lm.model.parameters(), strict=True))
    assert "forward" not in vars(lm.body)


def test_logits_that_are_not_finite_are_one_sentence():
    lm = language_model(tiny_config("qwen2"))
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(InputError, match="logits that are not finite: choose another llm.dtype"):
        _ = lm.layout


def test_a_refusal_names_the_architecture_and_what_differs():
    lm = language_model(tiny_config("xlnet"))
    with pytest.raises(InputError, match=r"tiny \(XLNetLMHeadModel\) cannot answer questions here: what it says after"):
        _ = lm.layout


@pytest.mark.parametrize(
    ("name", "limit"),
    [("gpt2", 256), ("qwen2", 256), ("opt", 256), ("roberta", 255), ("bloom", None), ("mamba", None)]
    + [("falcon (ALiBi)", None)],
)
def test_positions_are_counted(name, limit):
    lm = language_model(tiny_config(name))
    assert lm.max_positions == limit
    if limit is not None:
        lm.model(input_ids=torch.full((1, limit), 7))


def test_few_positions_are_enough_to_find_the_layout():
    config = tiny_config("gpt2")
    config.n_positions = 20
    assert language_model(config).layout.shared
