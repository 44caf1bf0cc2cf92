"""A frozen or trainable causal language model with what multiple-choice questions need from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.llm.sources import find_model, load_language_model
from uqabench.vocabulary import LETTERS

_CONTENT = "\u2042content\u2042"


@dataclass
class LanguageModel:
    """A causal LM, its tokenizer, and its chat template cut into the parts around a user's message.

    `answer_ids[i]` are the exact token ids that follow a prompt when the assistant answers with letter i (the
    letter, then the end of the turn): " A" and "A" are different tokens in many vocabularies.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    card: dict[str, Any] = field(default_factory=dict)
    system: str | None = None

    def __post_init__(self) -> None:
        self.chat_before, self.chat_after = self._chat_parts()
        blank = self._blank_before_answer()
        self.answer_ids = [self._answer_ids(letter, blank) for letter in LETTERS]
        if blank and len({ids[0] for ids in self.answer_ids}) == 1:  # a token of its own: part of every prompt
            self.chat_after += blank
            self.answer_ids = [self._answer_ids(letter, "") for letter in LETTERS]
        self.letter_ids = torch.tensor([ids[0] for ids in self.answer_ids])
        if len(set(self.letter_ids.tolist())) != len(LETTERS):
            raise InputError(
                f"The tokenizer of {self.name} gives two answer letters the same first token: use another."
            )

    @classmethod
    def load(
        cls, name: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, system: str | None = None
    ) -> LanguageModel:
        """Load by Hugging Face name, folder or installed alias (`sources.load_language_model`)."""
        model, tokenizer = load_language_model(str(name), device=device, dtype=dtype)
        card_path = find_model(name) / "card.json"
        card = read_json(card_path) if card_path.exists() else {}
        return cls(str(name), model, tokenizer, card, system)

    def check_split(self, split_hash: str) -> None:
        """InputError when the model was trained on another split: its training users may be evaluation users here."""
        trained = self.card.get("split_hash")
        if trained is not None and trained != split_hash:
            raise InputError(
                f"The language model {self.name} was trained on users of another split ({trained[:12]}…, the data has "
                f"{split_hash[:12]}…): use its data and split seed, or train one for this split (llm.name=train)."
            )

    def _messages(self, answer: str | None = None) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": _CONTENT})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return messages

    def _render(self, answer: str | None) -> str:
        return self.tokenizer.apply_chat_template(
            self._messages(answer), tokenize=False, add_generation_prompt=answer is None
        )

    def _chat_parts(self) -> tuple[str, str]:
        before, found, after = self._render(None).partition(_CONTENT)
        if not found:
            raise InputError(
                f"The chat template of {self.name} drops the user's message: use another model or template."
            )
        return before, after

    def _blank_before_answer(self) -> str:
        """What a template writes between its generation prompt and an answer, where that is white space."""
        written = self._render(LETTERS[0]).removeprefix(self._render(None))
        return written[: len(written) - len(written.lstrip())]

    def _answer_ids(self, letter: str, blank: str) -> list[int]:
        prompt = self.prompt_text("1 + 1 = ?")
        turn = self._render(letter).replace(_CONTENT, "1 + 1 = ?")
        # Templates that write a turn differently from their own generation prompt get the letter and the end token.
        full = (
            turn.rstrip("\n")
            if turn.startswith(prompt + blank + letter)
            else prompt + letter + (self.tokenizer.eos_token or "")
        )
        prompt_ids, ids = self.encode([prompt, full])
        if ids[: len(prompt_ids)] != prompt_ids:
            raise InputError(
                f"The tokenizer of {self.name} merges the answer letter into the prompt: use another model."
            )
        return ids[len(prompt_ids) :]

    def prompt_text(self, content: str) -> str:
        """The chat up to the point where the assistant answers."""
        return self.chat_before + content + self.chat_after

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens beyond those the chat template wrote."""
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    @property
    def width(self) -> int:
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, any shape → (…, width)."""
        return self.model.get_input_embeddings()(ids)

    def hidden(
        self, embeds: Tensor, mask: Tensor, position_ids: Tensor, *, layer: int | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Last hidden states (R, L, width) for an additive attention mask (R, 1, L, L); with `layer` also those behind
        so many layers."""
        output = self.model.base_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=position_ids,
            use_cache=False,
            output_hidden_states=layer is not None,
        )
        return output.last_hidden_state if layer is None else (output.last_hidden_state, output.hidden_states[layer])

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (…, V) of hidden states (…, width)."""
        logits = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits
