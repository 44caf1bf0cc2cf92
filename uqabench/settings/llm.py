"""Settings of the language model: which one, how it is asked, and how a small one is trained."""

from __future__ import annotations

from typing import Any

from uqabench.settings.questions import QuestionConfig
from uqabench.settings.schema import MAX_COUNT, MAX_SEED, section, setting
from uqabench.settings.training import OptimConfig
from uqabench.vocabulary import QUESTION_VERSIONS

DTYPES = ("float32", "bfloat16", "float16")
SOFT_PROMPT_PLACES = ("before-chat", "before-question", "last")


@section("prompt")
class PromptConfig:
    """How a question is put to the language model."""

    language: str = setting("en", "language of the questions: en, zh, or one of your own templates")
    attributes: tuple[str, ...] | None = setting(
        None, "what a text history says of each item; null: all the data set has but the seller"
    )
    soft_prompt_place: str = setting(
        "before-chat",
        "before-chat: in front of all, as published; before-question: where the user's message begins; last: where it "
        "ends",
        choices=SOFT_PROMPT_PLACES,
    )
    text_items: int = setting(
        0, "hybrid: an encoder's soft prompt is accompanied by the last so many items as text", ge=0, le=999_999
    )
    history_header: str = setting("History:", "one line before a text history")


@section("llm.train.model")
class SmallLMConfig:
    """Shape of a small Qwen2 model."""

    vocab_size: int = setting(8192, "vocabulary in tokens", ge=1, le=10**6)
    width: int = setting(128, "size of the states", ge=1, le=65_536)
    layers: int = setting(4, "number of layers", ge=1, le=1024)
    heads: int = setting(4, "attention heads", ge=1, le=1024)
    head_size: int | None = setting(
        None, "size of a head's queries, keys and values, even and at most width; null: width", ge=2, le=65_536
    )
    inner: int = setting(384, "inner width of the MLP", ge=1, le=10**6)
    max_positions: int = setting(4096, "longest prompt in tokens", ge=1, le=10**7)

    def __post_init__(self) -> None:
        if self.size_of_head % 2 or self.size_of_head > self.width:
            raise ValueError(
                f"head_size ({self.size_of_head}) must be even, for the rotary embedding, and at most width "
                f"({self.width}): change one."
            )

    @property
    def size_of_head(self) -> int:
        """Size of a head's queries, keys and values. Heads as wide as the states compare vectors whole: with a quarter
        of them a small model reads far less from soft tokens."""
        return self.head_size or self.width


@section("llm.train")
class TrainLMConfig:
    """Training of the small language model."""

    model: SmallLMConfig = setting(default_factory=SmallLMConfig)
    versions: dict[str, dict[str, float]] = setting(
        default_factory=dict,
        help="question versions that it learns from, and the mix of each; none: those of `llm.questions`",
        ge=0,
        le=10**9,
    )
    embedding_steps: int = setting(1_500, "steps of the embeddings alone, before anything else", ge=0, le=10**9)
    text_lengths: tuple[int, ...] = setting(
        (5, 20, 50), "items shown when the history is text", ge=1, le=10**6, size=(1, 64)
    )
    soft_share: float = setting(0.6, "share of documents whose history is a soft vector", ge=0, le=1)
    empty_share: float = setting(0.05, "share of documents without history", ge=0, le=1)
    integrations: tuple[str, ...] = setting(
        ("mean-pooling", "last", "mean+last", "segments", "segments+next"),
        "integrations whose soft tokens it learns to read",
        size=(1, 64),
    )
    noise: float = setting(
        1.0, "noise of the views from which soft vectors are regressed, at most, relative to them", ge=0, le=1e3
    )
    token_budget: int = setting(2_048, "padded tokens a step", ge=1, le=MAX_COUNT)
    documents_a_round: int = setting(512, "documents drawn and batched together", ge=1, le=10**7)
    hint_rounds: int = setting(
        30, "rounds at first, of single questions, in which the history is the right answer", ge=0, le=10**9
    )
    fade_rounds: int = setting(
        60, "rounds after them in which the history takes the answer's place bit by bit", ge=0, le=10**9
    )
    probe_weight: float = setting(1.0, "weight of the loss of the option probe in the middle layer", ge=0, le=1e6)
    held_out_users: int = setting(60, "training users whose documents only measure accuracy", ge=1, le=10**9)
    optim: OptimConfig = setting(default_factory=lambda: OptimConfig(lr=1e-3, epochs=1_000_000, max_steps=5_000))
    seed: int = setting(0, "seed of weights, documents and noise", ge=0, le=MAX_SEED)

    def __post_init__(self) -> None:
        for version in self.versions:
            if version not in QUESTION_VERSIONS:
                raise ValueError(f"versions has no '{version[:40]}': choose among {', '.join(QUESTION_VERSIONS)}.")
        if self.soft_share + self.empty_share > 1:
            raise ValueError(
                f"soft_share ({self.soft_share}) and empty_share ({self.empty_share}) exceed 1: lower one."
            )


@section("llm")
class LLMConfig:
    """The language model."""

    name: str = setting(
        "demo",
        "demo (ships with uqabench), train (a small one trained in this run), an alias of `uqabench llm add`, "
        "a Hugging Face name or a folder",
    )
    dtype: str = setting("float32", "number format of its weights; what trains is float32", choices=DTYPES)
    system: str | None = setting(None, "a system message")
    template_args: dict[str, Any] = setting(
        default_factory=dict, help="arguments of its chat template, such as `enable_thinking: false`"
    )
    train: TrainLMConfig = setting(default_factory=TrainLMConfig)
    questions: QuestionConfig = setting(default_factory=QuestionConfig)
