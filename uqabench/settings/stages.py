"""Settings of the three stages: pre-training, alignment, evaluation."""

from __future__ import annotations

from uqabench.settings.encoders import UserEncoderConfig
from uqabench.settings.schema import MAX_COUNT, MAX_LENGTH, MAX_SEED, section, setting
from uqabench.settings.training import OptimConfig

OBJECTIVES = ("sl", "cl")
WINDOWS = ("last", "chunks")
TIES = ("stored", "shuffled")
STRATEGIES = ("adapter", "full", "lora")


@section("pretrain")
class PretrainConfig:
    """Pre-training of one encoder."""

    encoder: UserEncoderConfig = setting(default_factory=UserEncoderConfig)
    objective: str = setting(
        "sl",
        "sl: cross entropy over the whole catalogue; cl: in-batch InfoNCE with log-Q correction and `temperature`",
        choices=OBJECTIVES,
    )
    temperature: float = setting(0.05, "temperature of cl", gt=0, le=100)
    length: int = setting(512, "N, the longest window in items (follows `history_length`)", ge=2, le=MAX_LENGTH)
    windows: str = setting(
        "last",
        "last: the last N of each user, as published; chunks: consecutive windows of N with a new phase each epoch",
        choices=WINDOWS,
    )
    ties: str = setting(
        "stored",
        "items with one timestamp: stored: in the log's order, as published; shuffled: in a new random order each step",
        choices=TIES,
    )
    batch_size: int = setting(256, "most sequences a step", ge=2, le=MAX_COUNT)
    token_budget: int = setting(131_072, "most items a step", ge=2, le=MAX_COUNT)
    patience: int = setting(0, "epochs without a better recall@10 before stopping, 0 for never", ge=0, le=10**9)
    train: bool = setting(True, "false: keep the initial weights, the control of what pre-training adds")
    checkpoint: str | None = setting(
        None, "folder of encoder weights to begin with, such as `uqabench import-checkpoint` writes; null: fresh ones"
    )
    optim: OptimConfig = setting(default_factory=OptimConfig)
    seed: int = setting(0, "seed of weights, batches and dropout", ge=0, le=MAX_SEED)

    def __post_init__(self) -> None:
        if self.token_budget < self.length:
            raise ValueError(f"token_budget ({self.token_budget}) is below length ({self.length}): raise it.")


@section("align")
class AlignConfig:
    """Alignment of one method."""

    integration: str = setting(
        "mean-pooling", "how states become soft tokens: a registered integration, or package.module:Class"
    )
    strategy: str = setting(
        "adapter",
        "adapter: it alone learns; full: the language model too; lora: low-rank matrices of it (text methods: full)",
        choices=STRATEGIES,
    )
    lora_rank: int = setting(16, "rank of the matrices of lora", ge=1, le=4096)
    lora_alpha: float = setting(32.0, "factor of their product, divided by the rank", gt=0, le=1e6)
    n_queries: int = setting(16, "soft tokens of integrations with learned queries", ge=1, le=4096)
    closed_form: bool = setting(
        False,
        "start the adapter at what its integration fits to training histories (a regression onto their text)",
    )
    batch_questions: int = setting(256, "questions a step", ge=1, le=MAX_COUNT)
    token_budget: int = setting(
        16_384, "padded tokens of one forward pass; a step that needs more accumulates", ge=1, le=MAX_COUNT
    )
    recompute: bool = setting(
        False,
        "keep only the inputs of the language model's layers for the backward pass and compute the rest again: less "
        "memory, a third more time",
        in_key=False,
    )
    adapter_lr: float = setting(1.0, "factor on optim.lr for the adapter", ge=0, le=1e6)
    train: bool = setting(True, "false: evaluate the method zero-shot")
    optim: OptimConfig = setting(default_factory=lambda: OptimConfig(epochs=3))
    seed: int = setting(0, "seed of weights and of the order of questions", ge=0, le=MAX_SEED)


@section("evaluate")
class EvaluateConfig:
    """Evaluation of one method."""

    token_budget: int = setting(16_384, "padded tokens of one forward pass", ge=1, le=MAX_COUNT)
    generate: bool = setting(
        False, "decode greedily and count an answer that starts with the right letter, instead of comparing logits"
    )
    max_new_tokens: int = setting(1, "tokens to decode with `generate`", ge=1, le=4096)
    shuffle: bool = setting(
        False, "show every history's questions with another user's soft prompt: a score that owes nothing to the vector"
    )
    permutations: int = setting(
        1,
        "cyclic orders of the options, each a pass; an option's logits are averaged, so 4 leave no favourite letter",
        ge=1,
        le=4,
    )
    seed: int = setting(0, "seed of shuffled embeddings, baselines and bootstrap", ge=0, le=MAX_SEED)

    def __post_init__(self) -> None:
        if self.generate and self.permutations > 1:
            raise ValueError("permutations averages logits, which `generate` does not use: set one of the two.")
