"""A small synthetic log, its questions and a small untrained language model, shared by the tests of several folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("UQABENCH_TUNING", "first")  # on a GPU: tests decide nothing for anybody
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when triton is imported

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.questions.generate import generate
from uqabench.questions.questions import QuestionSet
from uqabench.questions.templates import Templates
from uqabench.settings import QuestionConfig
from uqabench.vocabulary import SUBTASKS

if TYPE_CHECKING:
    from uqabench.llm.language_model import LanguageModel

# Every run draws the same cases; `pytest --hypothesis-profile=new-cases` looks for others. Neither depends on a clock.
_ANYWHERE = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("same-cases", derandomize=True, **_ANYWHERE)
settings.register_profile("new-cases", print_blob=True, **_ANYWHERE)
settings.load_profile("same-cases")

SMALL_LOG: dict[str, Any] = {
    "users": 120,
    "items": 150,
    "categories": 6,
    "brands_per_category": 3,
    "shops": 8,
    "mean_length": 45.0,
    "basket_size": 1.5,
    "seed": 5,
}
SMALL_HISTORY = 24

# A run on the small log in seconds: settings laid over the preset `tiny`, without the data's.
SMALL_RUN = (
    "data.prepare.evaluation_fraction=0.25",
    *(
        f"questions.{split}={{n_questions: {n}, history: {SMALL_HISTORY}, min_history: 10, seed: {seed}}}"
        for split, n, seed in (("train", 84, 1), ("evaluation", 70, 2))
    ),
    f"llm.questions={{n_questions: 84, history: {SMALL_HISTORY}, min_history: 10}}",
    "llm.train.model={vocab_size: 500, width: 16, layers: 1, heads: 2, inner: 32}",
    "llm.train.optim.max_steps=2",
    "llm.train.documents_a_round=8",
    f"pretrain={{length: {SMALL_HISTORY}, token_budget: 768, batch_size: 32}}",
    "pretrain.optim={epochs: 1, max_steps: 4}",
    "align.optim.max_steps=3",
)


@pytest.fixture(scope="session")
def stage_folder() -> Callable[[Path, str, str], Path]:
    """`stage_folder(run, stage, label)`: the one artefact of a stage that is called `label`, whatever its key."""

    def find(run: Path, stage: str, label: str) -> Path:
        (found,) = Path(run).glob(f"{stage}/{label}-????????")
        return found

    return find


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> InteractionStore:
    """About 110 users (a quarter evaluate) and 150 items with categories, brands and shops; baskets share a time."""
    config = PrepareConfig(min_item_interactions=2, min_user_length=8, max_sequence=64, evaluation_fraction=0.25)
    out = tmp_path_factory.mktemp("small") / "store"
    return prepare(open_source("synthetic", **SMALL_LOG), out, config, progress=False)


@pytest.fixture(scope="session")
def templates() -> Templates:
    return Templates.load()


def _ask(store: InteractionStore, split: str, seed: int) -> QuestionSet:
    mix = {name: 1.0 for name in SUBTASKS}
    config = QuestionConfig(
        n_questions=84, mix=mix, history=SMALL_HISTORY, min_history=10, cuts_per_user=2, seed=seed
    )  # fmt: skip
    return generate(store, split, config)[0]


@pytest.fixture(scope="session")
def small_train(small_store: InteractionStore) -> QuestionSet:
    return _ask(small_store, "train", 1)


@pytest.fixture(scope="session")
def small_evaluation(small_store: InteractionStore) -> QuestionSet:
    return _ask(small_store, "evaluation", 2)


@pytest.fixture(scope="session")
def make_lm(small_store: InteractionStore) -> Callable[..., LanguageModel]:
    """`make_lm("qwen2" | "llama", chat_template)`: an untrained model with weights large enough to tell texts apart."""
    pytest.importorskip("transformers")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from uqabench.llm.demo import SmallLMConfig, new_model, train_tokenizer
    from uqabench.llm.language_model import LanguageModel

    torch.set_num_threads(1)
    catalogue = small_store.catalogue
    texts = [value for name in catalogue.attributes() for value in catalogue.values[name]]

    def make(family: str = "qwen2", chat_template: str | None = None) -> LanguageModel:
        tokenizer = train_tokenizer(texts, 500)
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        if family == "qwen2":
            model = new_model(SmallLMConfig(width=32, layers=2, heads=4, inner=48), tokenizer, seed=1)
        else:
            torch.manual_seed(1)
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, bos_token_id=None,
                    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                )
            )  # fmt: skip
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(8.0)
        return LanguageModel(family, model.eval(), tokenizer)

    return make


@pytest.fixture(scope="session")
def small_lm(make_lm: Callable[..., LanguageModel]) -> LanguageModel:
    """The Qwen2 one; tests that change it make their own."""
    return make_lm()


@pytest.fixture(scope="session")
def small_run() -> tuple[str, ...]:
    return SMALL_RUN


@pytest.fixture(scope="session")
def small_log() -> dict[str, Any]:
    return dict(SMALL_LOG)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same numbers from torch's own generator, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def offline() -> None:
    """No test may reach for a model hub."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
