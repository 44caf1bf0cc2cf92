"""Stage 2: align a frozen encoder's output to the language model, or fine-tune it on text prompts (paper §3.3).

The same code trains every prompted method: soft prompts (adapter alone, or adapter and LLM), text histories and no
history at all, with the same questions, the same number of steps and the loss on the assistant's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from uqabench.artifact import Artifact, Stage
from uqabench.data.catalogue import Catalogue
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.integrations import NEXT, TrainingHistories, Window, find_integration, fit_ridge
from uqabench.llm.batches import PromptGroup, number_keys
from uqabench.llm.chat import Chat
from uqabench.llm.demo import save_model
from uqabench.llm.history import HistoryTokens, history_vectors, last_items, window_marker
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.lora import add_lora, load_lora, save_lora
from uqabench.llm.prompts import PromptBuilder
from uqabench.llm.sources import load_tokenizer
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import history_items
from uqabench.questions.templates import Templates
from uqabench.settings.llm import PromptConfig
from uqabench.settings.reader import key_dict
from uqabench.settings.stages import AlignConfig
from uqabench.stages.alignment_batches import AlignmentBatches
from uqabench.stages.distributed import processes
from uqabench.stages.distributed.several import gathered_model, new_trainer, whole_state
from uqabench.stages.states import FrozenStates
from uqabench.stages.training import Trainer, fits_in_memory, seed_everything

SCORED_ITEMS = 50_000
"""Items, at most, whose words are held against the scores that an encoder gives them."""
KEPT_TOKENS = 2**24
"""Of a question set's prompts, at most, that stay in memory for the next method: 128 MiB."""


class _Encoded(NamedTuple):
    """Prompts of a question set with so many items as text and so many soft tokens."""

    questions: QuestionSet
    asked: tuple[int, int]
    prompts: list[np.ndarray]


@dataclass(frozen=True)
class Context:
    """What every prompted method shares: data, questions, templates, prompt format, and where the LLM comes from.

    evaluation: the questions that decide the score. users: whom they are about, "evaluation" or "validation".
    """

    store: InteractionStore
    train: QuestionSet
    evaluation: QuestionSet
    templates: Templates
    prompt: PromptConfig
    llm: str
    device: str = "cpu"
    dtype: str = "float32"
    system: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    template_args: dict[str, Any] = field(default_factory=dict)
    users: str = "evaluation"
    _encoded: list[_Encoded] = field(default_factory=list, init=False, repr=False, compare=False)

    @cached_property
    def chat(self) -> Chat:
        """The chat around every question, read once: a template may write the day, and a run may last past midnight."""
        return Chat.of(load_tokenizer(self.llm), self.llm, self.system, self.template_args)

    def load_lm(self, folder: Path | None = None, dtype: str | None = None) -> LanguageModel:
        """The language model, from `folder` where a method fine-tuned it, in `dtype` where it is not the run's own."""
        lm = LanguageModel.load(
            folder or self.llm, device=self.device, dtype=getattr(torch, dtype or self.dtype), chat=self.chat
        )
        # Whoever the questions are not about may have been shown to the language model.
        lm.check_split(self.store.split_hash, self.store.evaluation_hash if self.users == "evaluation" else None)
        return lm

    def asking(self) -> dict[str, Any]:
        """What, beside data and questions, decides how the language model is asked: part of every stage's key."""
        return {
            "prompt": key_dict(self.prompt),
            "device": self.device,
            "dtype": self.dtype,
            "system": self.system,
            "template_args": self.template_args,
            "chat": self.chat.to_dict(),
        }

    def builder(self, lm: LanguageModel) -> PromptBuilder:
        return PromptBuilder(lm, self.store, self.templates, self.prompt)

    def prompts(self, lm: LanguageModel, questions: QuestionSet, *, n_text: int, n_soft: int) -> list[np.ndarray]:
        """Prompt ids of all questions, as `PromptBuilder.encode` makes them, not to be written to.

        The last two sets stay: most methods differ in their vectors alone, and ask the training questions and those of
        the evaluation in turns.
        """
        asked = n_text, n_soft
        for known in self._encoded:
            if known.questions is questions and known.asked == asked and lm.name == self.llm:
                return known.prompts
        prompts = self.builder(lm).encode(questions, np.arange(len(questions)), n_text=n_text, n_soft=n_soft)
        for prompt in prompts:
            prompt.flags.writeable = False
        if lm.name == self.llm and sum(map(len, prompts)) <= KEPT_TOKENS:  # another model may have another tokenizer
            self._encoded[:] = [*self._encoded[-1:], _Encoded(questions, asked, prompts)]
        return prompts


@dataclass(frozen=True)
class PromptedMethod:
    """How one method shows the history: `n_text` items as text (0: none), the frozen `states` of an encoder, or both
    (hybrid)."""

    name: str
    n_text: int = 0
    states: FrozenStates | None = None
    states_content: str | None = None


def trains_language_model(config: AlignConfig, *, has_states: bool) -> bool:
    """Whether alignment trains the language model's own weights: text methods, which have no states and so no adapter,
    do with the strategy "adapter" too."""
    return config.train and (config.strategy == "full" or (not has_states and config.strategy == "adapter"))


def check_training(name: str, config: AlignConfig, dtype: str, *, has_states: bool) -> None:
    """InputError when method `name` would train a language model in float16, whose gradients overflow or vanish."""
    if dtype == "float16" and trains_language_model(config, has_states=has_states):
        instead = "align.strategy=adapter" if has_states else f"{name}@zero-shot"
        raise InputError(
            f"{name} trains the language model, and llm.dtype is float16, in which its gradients overflow: set "
            f"llm.dtype=bfloat16, which needs as much memory, or float32, or use {instead}."
        )


def check_prompts(
    context: Context, lm: LanguageModel, name: str, config: AlignConfig, *, n_text: int, has_states: bool
) -> None:
    """InputError when the longest prompts of method `name` have more tokens than the language model has positions.

    Fast enough for the start of a run: only the prompts with the longest texts are encoded.
    """
    n_soft = find_integration(config.integration).n_tokens(config) if has_states else 0
    builder = context.builder(lm)
    for questions in (context.train, context.evaluation):
        lm.check_prompts(builder.longest(questions, n_text=n_text, n_soft=n_soft), name)


class SoftPrompts(nn.Module):
    """An adapter over frozen states: pair indices (G,) → soft prompt vectors (G · n_tokens, LLM width)."""

    def __init__(self, states: FrozenStates, config: AlignConfig, lm: LanguageModel) -> None:
        super().__init__()
        self.integration = find_integration(config.integration)
        if states.kept != self.integration.kept:
            raise InputError(
                f"The integration {config.integration} reads '{self.integration.kept}', but of the encoder's output "
                f"'{states.kept}' was kept: encode the histories for this integration."
            )
        self.frozen = states
        self.n_tokens = self.integration.n_tokens(config)
        # A soft token much smaller than a token embedding has a gradient thousands of times larger.
        self.adapter = self.integration.build(states.width, lm.width, lm.token_rms, config)

    def inputs(self, pairs: np.ndarray) -> tuple[Tensor, ...]:
        """What the adapter takes for these pairs: pooled vectors, or states and offsets."""
        frozen = self.frozen
        if frozen.pooled is not None:
            return (torch.from_numpy(np.asarray(frozen.pooled[pairs])),)
        spans = frozen.spans[pairs]
        states = np.concatenate([frozen.states[begin:end] for begin, end in spans])
        offsets = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
        return torch.from_numpy(states), torch.from_numpy(offsets)

    def forward(self, pairs: np.ndarray) -> Tensor:
        device = next(self.adapter.parameters()).device
        return self.adapter(*(part.to(device) for part in self.inputs(pairs))).flatten(0, 1)


def prompt_groups(
    context: Context,
    lm: LanguageModel,
    questions: QuestionSet,
    method: PromptedMethod,
    n_soft: int,
    *,
    over_users: bool = False,
) -> list[PromptGroup]:
    """All questions as groups that share a prefix; keys index the pairs of the method's frozen states.

    over_users: where a soft prompt stands last, users share what stands before it. Training keeps a user's questions
    together instead, for a step of questions of one kind says little about the others.
    """
    rows = np.arange(len(questions))
    prompts = context.prompts(lm, questions, n_text=method.n_text, n_soft=n_soft)
    keys = prompt_keys(questions, method)
    lm.check_prompts(max(map(len, prompts), default=0), method.name)
    over_users = over_users and n_soft > 0 and method.n_text == 0 and context.prompt.soft_prompt_place == "last"
    answer_tokens = max(map(len, lm.answer_ids)) - 1
    return lm.layout.group(prompts, keys, questions.answer, rows, answer_tokens, over_users=over_users)


def prompt_keys(questions: QuestionSet, method: PromptedMethod) -> np.ndarray:
    """For every question (Q,) the history that it is about: a pair of the method's frozen states, where it has any."""
    if method.states is not None:
        return method.states.pairs.keys(questions)
    return np.unique(np.stack([questions.user, questions.cut], axis=1), axis=0, return_inverse=True)[1].ravel()


def step_groups(groups: list[PromptGroup], n_questions: int, rng: np.random.Generator) -> list[list[PromptGroup]]:
    """Groups in random order, cut into steps of about `n_questions` questions: equal for all methods, however long
    their prompts are."""
    order = rng.permutation(len(groups))
    asked = np.cumsum([len(groups[i].questions) for i in order])
    step = (asked - 1) // n_questions
    return [[groups[i] for i in order[step == k]] for k in np.unique(step)]


def soft_for(soft: SoftPrompts | None, groups: list[PromptGroup]) -> tuple[Tensor | None, list[PromptGroup]]:
    """Soft prompts of a batch's groups, and the groups renumbered to index them."""
    if soft is None:
        return None, groups
    keys, groups = number_keys(groups)
    return soft(keys), groups


def align(context: Context, method: PromptedMethod, config: AlignConfig, *, progress: bool = True) -> Stage:
    """Train one prompted method into the artefact folder `out` (adapter.safetensors, llm/); reuse when unchanged."""
    check_training(method.name, config, context.dtype, has_states=method.states is not None)
    inputs = dict(context.inputs)
    if method.states_content:
        inputs["states"] = method.states_content
    settings = {**key_dict(config), "n_text": method.n_text, **context.asking()}

    def make(folder: Path, work: Path) -> float:
        with fits_in_memory(f"align {method.name}", "align.token_budget", config.token_budget):
            return _train(context, method, folder, work, config, progress)

    return Stage("align", settings, inputs, make, together=True)


def _train(
    context: Context, method: PromptedMethod, out: Path, work: Path, config: AlignConfig, progress: bool
) -> float:
    seed_everything(config.seed, torch.device(context.device))
    full = trains_language_model(config, has_states=method.states is not None)
    # A step of 1e-4 is lost in a bfloat16 weight, so what trains is float32 and computes under autocast.
    lm = context.load_lm(dtype="float32" if full else None)
    if full and context.dtype == "bfloat16":
        config = replace(config, optim=replace(config.optim, bf16=True))
    soft = SoftPrompts(method.states, config, lm).to(lm.device) if method.states is not None else None
    lm.model.requires_grad_(full)
    trained: dict[str, nn.Module] = {"llm": lm.model} if full else {}
    if config.train and config.strategy == "lora":
        trained["lora"] = add_lora(lm, config.lora_rank, config.lora_alpha)
    if config.recompute:
        lm.recompute_activations()
    if soft is not None:
        trained["adapter"] = soft.adapter
    metrics: dict[str, Any] = {"steps": 0}
    if soft is not None and config.closed_form:
        metrics |= soft.integration.initialise(soft.adapter, training_histories(context, lm, soft))
    seconds = 0.0
    if config.train:
        trainer = _fit(context, method, lm, soft, trained, config, out, work, progress)
        metrics["steps"], seconds = trainer.step, trainer.seconds
        if full:
            lm = replace(lm, model=gathered_model(lm.model, lambda: context.load_lm(dtype="float32").model))
    adapter = whole_state(soft.adapter) if soft is not None else {}
    if not processes().is_first:
        return seconds
    if config.train:
        trainer.write_log()
    if soft is not None:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in adapter.items()},
            out / "adapter.safetensors",
        )
    if "lora" in trained:
        save_lora(lm, out / "lora")
    if full:
        save_model(lm.model.to(getattr(torch, context.dtype)), lm.tokenizer, out / "llm")
        if lm.card:
            write_json(out / "llm" / "card.json", lm.card)
    write_json(out / "metrics.json", metrics)
    return seconds


def _fit(
    context: Context,
    method: PromptedMethod,
    lm: LanguageModel,
    soft: SoftPrompts | None,
    trained: dict[str, nn.Module],
    config: AlignConfig,
    out: Path,
    work: Path,
    progress: bool,
) -> Trainer:
    n_soft = soft.n_tokens if soft is not None else 0
    groups = prompt_groups(context, lm, context.train, method, n_soft)

    def batches_of(epoch: int) -> list[list[PromptGroup]]:
        rng = np.random.Generator(np.random.Philox(key=[config.seed, epoch]))
        return step_groups(groups, config.batch_questions, rng)

    made = AlignmentBatches(lm, soft, config)
    trainer = new_trainer(
        trained,
        made.loss,
        config.optim,
        total_steps=len(batches_of(0)) * config.optim.epochs,
        work=work,
        log=out / "log.jsonl",
        label=f"align {method.name}",
        progress=progress,
        lr_scale={"adapter": config.adapter_lr},
        load=made.load,
        parts=lambda loaded: loaded,
        seed=config.seed,
        shards=lm.layers if "llm" in trained else (),
    )
    trainer.run(batches_of)
    return trainer


def training_histories(context: Context, lm: LanguageModel, soft: SoftPrompts) -> TrainingHistories:
    """The histories that training questions are about, with the language model's own vectors of their text."""
    frozen = soft.frozen.pairs
    pairs = np.unique(frozen.keys(context.train))
    histories = [
        history_items(context.store, int(frozen.users[p]), int(frozen.cuts[p]), context.train.n_history) for p in pairs
    ]
    weight = lm.model.get_input_embeddings().weight.detach().float()
    tokens = HistoryTokens(lm, context.builder(lm))

    def vectors(window: Window) -> Tensor:
        if window == NEXT:
            found = expected_vectors(context.store.catalogue, tokens, weight, soft, pairs)
            return (found + window_marker(lm, window).detach().float().cpu()) * lm.embedding_scale
        shown = history_vectors(weight, *tokens.bags(last_items(histories, window)))
        return (shown + window_marker(lm, window).detach().float()).cpu() * lm.embedding_scale

    users = torch.from_numpy(frozen.users[pairs])
    return TrainingHistories(users, inputs=lambda rows: soft.inputs(pairs[rows.numpy()]), vectors=vectors)


def expected_vectors(
    catalogue: Catalogue, tokens: HistoryTokens, weight: Tensor, soft: SoftPrompts, pairs: np.ndarray
) -> Tensor:
    """(n, LLM width): vectors whose inner product with an item's mean token embedding is, up to what a ridge regression
    over the catalogue's most popular items cannot tell, the score that the encoder gives the item at these pairs.

    Centred, and as large as token embeddings.
    """
    scoring = soft.frozen.scoring
    if scoring is None:
        raise InputError(
            f"The integration {soft.integration.__class__.__name__} reads what the encoder expects next, and these "
            "states come from no encoder that scores items: choose segments."
        )
    items = np.sort(np.argsort(-catalogue.popularity, kind="stable")[:SCORED_ITEMS])
    words, starts = tokens.bags([items[i : i + 1] for i in range(len(items))])
    texts = embedding_bag(words.to(weight.device), weight, starts.to(weight.device), mode="mean").cpu()
    fit = fit_ridge(texts, scoring["item_table"][torch.from_numpy(items)])
    (pooled,) = soft.inputs(pairs)
    last = pooled[:, -1].double()
    queries = last @ scoring["head_weight"].double().T + scoring["head_bias"].double()
    expected = queries @ fit.weight
    expected = expected - expected.mean(0)
    rms = weight.square().mean().sqrt().cpu()
    return (expected * (rms / expected.square().mean().sqrt().clamp_min(1e-8))).float()


def load_aligned(
    context: Context, method: PromptedMethod, artifact: Artifact, config: AlignConfig
) -> tuple[LanguageModel, SoftPrompts | None]:
    """The language model and soft prompts that `align` left in `artifact`, frozen, in evaluation mode."""
    lm = context.load_lm(_trained_model(artifact))
    if _written(artifact, "lora"):
        load_lora(lm, artifact.path / "lora")
    lm.model.eval().requires_grad_(False)
    if method.states is None:
        return lm, None
    soft = SoftPrompts(method.states, config, lm)
    path = artifact.path / "adapter.safetensors"
    try:
        soft.adapter.load_state_dict(load_file(path))
    except RuntimeError as error:  # a user's class that changed since
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit {config.integration} ({reason}): delete {artifact.path}.") from error
    return lm, soft.to(lm.device).eval().requires_grad_(False)


def _trained_model(artifact: Artifact) -> Path | None:
    """The folder of the language model that this method trained whole, None where it did not."""
    return artifact.path / "llm" if _written(artifact, "llm") else None


def _written(artifact: Artifact, name: str) -> bool:
    """Whether alignment wrote the folder `name`.

    InputError when files lie in it that alignment did not write: loading might read them.
    """
    folder, written = artifact.path / name, set(artifact.manifest["files"])
    found = [str(file.relative_to(artifact.path)) for file in folder.rglob("*") if file.is_file()]
    if stray := sorted(set(found) - written):
        raise InputError(
            f"{artifact.path / stray[0]} was not written by this run, and loading the model might read it: remove it."
        )
    return any(file.startswith(f"{name}/") for file in written)
