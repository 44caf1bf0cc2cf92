"""A frozen or trainable causal language model with what multiple-choice questions need from it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.checkpoint import checkpoint

from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.llm import chat as chats
from uqabench.llm.chat import Chat, ControlTokens, words_only
from uqabench.llm.packed import attending_again
from uqabench.llm.products import use_onednn
from uqabench.llm.sources import find_model, load_language_model

if TYPE_CHECKING:
    from uqabench.llm.layout import Layout

_SOME_ROWS = 1024  # token embeddings that tell what the embedding module multiplies by


@dataclass
class LanguageModel:
    """A causal LM, its tokenizer, and its chat template cut into the parts around a user's message.

    system: a system message. template_args: arguments of the chat template (`enable_thinking: false`). chat: the chat,
    where it is known already; else it is read off the tokenizer's template.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    card: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    template_args: dict[str, Any] = field(default_factory=dict)
    chat: Chat | None = None

    def __post_init__(self) -> None:
        if self.chat is None:
            self.chat = Chat.of(self.tokenizer, self.name, self.system, self.template_args)
        self.chat_before, self.chat_after = self.chat.before, self.chat.after
        self.answer_ids = [list(ids) for ids in self.chat.answer_ids]
        self.letter_ids = torch.tensor([ids[0] for ids in self.answer_ids])
        self.control = ControlTokens(self.tokenizer, self.chat)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        system: str | None = None,
        template_args: dict[str, Any] | None = None,
        chat: Chat | None = None,
    ) -> LanguageModel:
        """Load by Hugging Face name, folder or installed alias (`sources.load_language_model`), and find out how it
        can be asked (`layout`); InputError for a model that cannot be asked at all."""
        model, tokenizer = load_language_model(str(name), device=device, dtype=dtype)
        use_onednn(model)
        card = read_card(find_model(name) / "card.json")
        lm = cls(str(name), model, tokenizer, card, system, template_args or {}, chat)
        _ = lm.layout
        return lm

    def check_split(self, split_hash: str, evaluation_hash: str | None = None) -> None:
        """InputError when the model was trained on another split: its training users may be asked about here.

        evaluation_hash: which users evaluate (`InteractionStore.evaluation_hash`), where the questions are about these
        alone. A model that was trained on any of the others will do then.
        """
        trained = self.card.get("split_hash")
        if trained is None or trained == split_hash:
            return
        knows_no_evaluation = evaluation_hash == self.card.get("evaluation_hash", trained)
        if evaluation_hash is None or not knows_no_evaluation:
            raise InputError(
                f"The language model {self.name} was trained on users of another split ({trained[:12]}…, the data has "
                f"{split_hash[:12]}…): use its data and split seed, or train one for this split (llm.name=train)."
            )

    def check_prompts(self, longest: int, method: str) -> None:
        """InputError when a prompt of `longest` tokens and its answer have more tokens than the model has positions;
        `method` shows the history so."""
        tokens = longest + max(len(ids) for ids in self.answer_ids) - 1
        if self.max_positions is not None and tokens > self.max_positions:
            raise InputError(
                f"{method}: the longest prompt has {tokens} tokens with its answer, more than the {self.max_positions} "
                f"positions of the language model {self.name}: show fewer items (text20 in place of text50) or soft "
                "tokens (align.n_queries), or choose a model with a longer context."
            )

    # Texts

    def prompt_text(self, content: str) -> str:
        """The chat up to the point where the assistant answers; `content` is plain text, whatever stands in it."""
        return self.chat_before + self.control.split(content) + self.chat_after

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text as it stands, without special tokens beyond those that the chat template wrote."""
        return chats.encode(self.tokenizer, texts)

    def encode_data(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts that come from data: none of them is a control token."""
        return self.encode([self.control.split(text) for text in texts])

    def encode_messages(self, before: str, contents: list[str], after: str | None = None) -> list[list[int]]:
        """Token ids of `before`, a user's message as plain text, and `after` (None: the end of the chat), for each
        message.

        All have the same control tokens, those of the template, whatever stands in the messages.
        """
        after = self.chat_after if after is None else after
        encoded = self.encode([before + self.control.split(content) + after for content in contents])
        allowed = self.control.count(self.encode([before + after]))[0]
        for i in np.flatnonzero(self.control.count(encoded) != allowed):  # a tokenizer that rewrites what it reads
            encoded[i] = self.encode([before + words_only(contents[i]) + after])[0]
        return encoded

    # Sizes

    @property
    def width(self) -> int:
        """Width of a token embedding, and so of a soft token."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @cached_property
    def layout(self) -> Layout:
        """How questions are laid out in rows, by comparison with the model's own forward pass."""
        from uqabench.llm.layout import find_layout

        return find_layout(self)

    @cached_property
    def max_positions(self) -> int | None:
        """Tokens that a prompt may have: what the configuration and a learned table of positions allow; None for a
        model without positions."""
        config = self.model.config.get_text_config(decoder=True)
        if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", "") in ("alibi", "nope"):
            return None
        limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
        for name, module in self.model.named_modules():
            leaf = name.rpartition(".")[2]
            if isinstance(module, nn.Embedding) and leaf in ("wpe", "position_embeddings", "embed_positions"):
                reserved = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
                limits.append(module.num_embeddings - reserved)
        found = [limit for limit in limits if isinstance(limit, int) and limit > 0]
        return min(found, default=None)

    @property
    def token_rms(self) -> float:
        """Root mean square of token embeddings as the model receives them: the size of soft tokens like words."""
        return self.table_rms * self.embedding_scale

    @property
    def table_rms(self) -> float:
        """Root mean square of the table of token embeddings."""
        return float(self.model.get_input_embeddings().weight.detach().float().square().mean().sqrt())

    @property
    def embedding_scale(self) -> float:
        """What the embedding module multiplies its table by, 1 for most models and √width for some."""
        module = self.model.get_input_embeddings()
        table = module.weight.detach()
        with torch.no_grad():
            ids = torch.arange(min(_SOME_ROWS, len(table)), device=table.device)
            given, rows = module(ids).float(), table[ids].float()
        return 1.0 if torch.equal(given, rows) else float((given.square().sum() / rows.square().sum()).sqrt())

    # The forward pass

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, any shape → (…, width)."""
        return self.model.get_input_embeddings()(ids)

    def hidden(
        self, embeds: Tensor, mask: Tensor, position_ids: Tensor | None, *, layer: int | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Last hidden states (R, L, width); with `layer` also those behind so many layers.

        mask: additive (R, 1, L, L) with `position_ids` (R, L), or (R, L) with 1 at tokens and 0 at padding behind them,
        without position ids: the model then masks and counts by itself.
        """
        inputs = {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": position_ids,
            "use_cache": False,
            "output_hidden_states": layer is not None,
        }
        given = {name: value for name, value in inputs.items() if value is not None}
        output = self.body(**{name: value for name, value in given.items() if name in self._accepted})
        return output.last_hidden_state if layer is None else (output.last_hidden_state, output.hidden_states[layer])

    @cached_property
    def body(self) -> nn.Module:
        """The part of the model that makes hidden states: the first module that its forward pass enters."""
        entered: list[nn.Module] = []
        hook = register_module_forward_pre_hook(lambda module, _: entered.append(module))
        try:
            with torch.no_grad():
                self.model(input_ids=self.letter_ids[None].to(self.device))
        finally:
            hook.remove()
        return entered[1]

    @property
    def layers(self) -> list[nn.Module]:
        """The model's repeated layers, by the classes that it does not let be split over devices; those of the longest
        list of modules where it names none."""
        names = set(getattr(self.model, "_no_split_modules", None) or ())
        found = [module for module in self.model.modules() if type(module).__name__ in names]
        lists = [list(module) for module in self.model.modules() if isinstance(module, nn.ModuleList)]
        return found or max(lists, key=len, default=[])

    def recompute_activations(self) -> None:
        """Keep only each layer's inputs for the backward pass, which computes the rest of it once more."""
        again = partial(attending_again, self.body)
        for layer in self.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=again)

    @cached_property
    def _accepted(self) -> set[str]:
        parameters = inspect.signature(self.body.forward).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return {"inputs_embeds", "attention_mask", "position_ids", "use_cache", "output_hidden_states"}
        return set(parameters)

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (N, V) of last hidden states (N, width), with all that the model's own head does."""
        output = _BodyOutput(hidden[None])
        with _forward_of(self.body, lambda *args, **kwargs: output):
            return self.model(inputs_embeds=hidden[None], use_cache=False).logits[0]

    def letter_logits(self, hidden: Tensor) -> Tensor:
        """Logits (N, 4) of the answer letters after last hidden states (N, width), computed in float32: in bfloat16 one
        question in ten has two letters with the same logit. The head's other rows are left out where it is linear."""
        at = self.letter_ids.to(hidden.device)
        head = self.model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            return self.logits(hidden).index_select(1, at).float()
        weight, bias = head.weight[at].float(), None if head.bias is None else head.bias[at].float()

        def letters_only(states: Tensor) -> Tensor:
            # As wide as the vocabulary, for what the model does to its logits afterwards.
            logits = states.new_zeros(*states.shape[:-1], len(head.weight), dtype=torch.float32)
            return logits.index_copy(-1, at, nn.functional.linear(states.float(), weight, bias))

        with _forward_of(head, letters_only):
            return self.logits(hidden).index_select(1, at).float()


def read_card(path: Path) -> dict[str, Any]:
    """What a language model's card says, {} without one; InputError for a card that is not one."""
    if not path.exists():
        return {}
    card = read_json(path)
    split = card.get("split_hash") if isinstance(card, dict) else 0
    if not (split is None or isinstance(split, str)):
        raise InputError(f"{path} is no card of a language model (its split_hash tells a split): fetch it again.")
    return card


class _BodyOutput:
    """What a model's body returns, with hidden states and nothing else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int | slice) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@contextmanager
def _forward_of(module: nn.Module, forward: Any) -> Iterator[None]:
    """Within the block `module` computes `forward`; its parameters and settings stay where the model looks for them."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
