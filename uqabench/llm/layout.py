"""How questions are laid out in rows for one language model, found by comparison with its own forward pass.

Several questions in one row, with an attention mask and restarted positions of ours, is the fastest layout. It is wrong
for models that are more than attention over what a mask allows: recurrent and convolutional layers, attention biases by
distance (ALiBi), windows. So a few questions are answered when a model is loaded, in shared rows and in rows of their
own, and compared with the model's own forward pass on plain token ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from uqabench.errors import InputError
from uqabench.llm.batches import SOFT, PromptGroup, batch_hidden, collate, group_over_users, group_prompts
from uqabench.llm.packed import can_pack

if TYPE_CHECKING:
    from uqabench.llm.language_model import LanguageModel

# Tokens of the prompts that are compared: a shared beginning, then the ends of four questions.
_PREFIX, _ENDS = 17, (11, 6, 11, 9)

# Largest root mean square error of the logits in units of their spread over the vocabulary. The smallest mistake of an
# architecture that is driven wrongly is about 0.01. In half precision rounding alone comes near it (0.05 in the 30
# layers of SmolLM2-135M in bfloat16), so there shared rows are held against rows of one question with the same kind of
# mask, which round alike: at most so many times their error.
_TOLERANCE, _TOLERANCE_HALF = 1e-3, 0.25
_TIMES_ROUNDING = 1.5

# The same for one question's logits when another one of its row is exchanged: exactly 0 for attention, but for the
# rounding of experts that compute other tokens beside them.
_LEAK, _LEAK_HALF = 1e-5, 2e-3

# Kinds of layers that see what a mask allows, up to their window. Others may carry a state from token to token, or
# choose among more tokens than there are in the prompts compared here.
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}

# Mean tokens of prefixes from which packing pays: a row costs a call in every layer.
_LONG_PREFIX = 64

# What configurations call the number of tokens that a layer looks back.
_WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "attention_chunk_size",
    "attention_window_size",
    "window_size",
    "local_attention",
)


@dataclass(frozen=True)
class Layout:
    """shared: several questions may stand in one row, of at most `max_row_tokens` tokens with their answers (None: any
    number); else each has its own. packed: rows may follow one another without padding. reason: why, where it is not
    simply the fastest."""

    shared: bool
    max_row_tokens: int | None = None
    reason: str = ""
    packed: bool = False

    def packs(self, groups: list[PromptGroup]) -> bool:
        """Whether these rows are faster without padding, and may be laid out so."""
        alone = groups[0].own_mask
        return self.packed and not alone and sum(len(group.prefix) for group in groups) >= _LONG_PREFIX * len(groups)

    def group(
        self,
        prompts: list[np.ndarray],
        keys: np.ndarray,
        answers: np.ndarray,
        rows: np.ndarray,
        answer_tokens: int,
        *,
        over_users: bool = False,
    ) -> list[PromptGroup]:
        """`batches.group_prompts` as this layout allows; `over_users`: `batches.group_over_users`. Prompts that are
        followed by up to `answer_tokens` tokens and then longer than a shared row may be get rows of their own, all of
        the set."""
        longest = max((len(prompt) for prompt in prompts), default=0) + answer_tokens
        alone = not self.shared or (self.max_row_tokens is not None and longest > self.max_row_tokens)
        limits = {"max_tokens": self.max_row_tokens, "answer_tokens": answer_tokens}
        if over_users and not alone:
            return group_over_users(prompts, keys, answers, rows, **limits)
        return group_prompts(prompts, keys, answers, rows, own_mask=alone, **limits)


def find_layout(lm: LanguageModel) -> Layout:
    """The fastest layout that gives the logits of the model's own forward pass.

    InputError, naming the architecture and what differs, when none does. Milliseconds for small models: a dozen
    forward passes of some 30 tokens.
    """
    training = lm.model.training
    devices = [lm.device] if lm.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        lm.model.eval()
        try:
            return _Comparison(lm).layout()
        finally:
            lm.model.train(training)


class _Comparison:
    """Four questions, the first three about one history, with the logits of the model's own forward pass."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.architecture = type(lm.model).__name__
        self.prompts = _prompts(lm)
        self.answers = np.arange(len(self.prompts)) % len(lm.answer_ids)
        self.half = lm.model.get_input_embeddings().weight.dtype in (torch.bfloat16, torch.float16)
        self.tolerance = _TOLERANCE_HALF if self.half else _TOLERANCE

    def layout(self) -> Layout:
        """The fastest layout that is right, for tokens and for a vector in place of one."""
        layout = self._layout_of_tokens()
        if wrong := self._difference_of_vectors(layout):
            raise self._refusal(wrong)
        return layout

    def _layout_of_tokens(self) -> Layout:
        try:
            self._own_forward()
        except InputError:
            raise
        except Exception as error:
            raise self._refusal(f"its forward pass fails on token ids ({_reason(error)})") from error
        config = self.lm.model.config.get_text_config(decoder=True)
        window, others = _window(config), sorted(set(getattr(config, "layer_types", None) or ()) - _ATTENTION)
        if others:
            why = f"layers of kind {', '.join(others)}"
        elif window is not None and window < 2 * max(map(len, self.prompts)):
            why = f"layers look back {window} tokens"
        else:
            why = self._difference_of_shared_rows()
            if not why:
                reason = f"rows of at most {window} tokens, the window" if window else ""
                return Layout(True, window, reason, packed=self._can_be_packed())
        alone = self._difference(self._own_groups(), self.tolerance)
        if alone:
            raise self._refusal(alone)
        return Layout(False, None, why)

    def _own_forward(self) -> None:
        """Logits (M, V) at each answer's tokens, in the order of the questions."""
        expected = []
        for prompt, answer in zip(self.prompts, self.answers, strict=True):
            whole = np.concatenate([prompt, self.lm.answer_ids[answer][:-1]])
            at_answer = self._logits_of(whole)[len(prompt) - 1 :]
            expected.append(at_answer)
            alone = self._logits_of(prompt)[-1]
            self.spread = float(alone.std())
            if not alone.isfinite().all():
                raise InputError(
                    f"The language model {self.lm.name} gives logits that are not finite: choose another llm.dtype, or "
                    "align with a lower lr where this run trained it."
                )
            if len(whole) > len(prompt) and self._error(at_answer[0], alone) > self.tolerance:
                raise self._refusal(
                    "what it says after a prompt changes with the tokens that follow (it is not causal)"
                )
        self.expected = torch.cat(expected)

    def _logits_of(self, ids: np.ndarray) -> Tensor:
        return self.lm.model(input_ids=torch.from_numpy(ids)[None].to(self.lm.device)).logits[0].float()

    def _shared_groups(self) -> list[PromptGroup]:
        """Questions 0 and 1 in a row, 2 and 1 in another, 3 in a third, shorter one."""
        members = [[0, 1], [2, 1], [3]]
        prompts = [self.prompts[i] for part in members for i in part]
        keys = np.array([key for key, part in enumerate(members) for _ in part])
        rows = np.array([i for part in members for i in part])
        return group_prompts(prompts, keys, self.answers[rows], rows)

    def _own_groups(self, own_mask: bool = True) -> list[PromptGroup]:
        rows = np.arange(len(self.prompts))
        return group_prompts(self.prompts, np.zeros(len(rows)), self.answers, rows, max_questions=1, own_mask=own_mask)

    def _difference_of_shared_rows(self) -> str:
        tolerance = self.tolerance
        if self.half:
            try:
                # As wide as the shared rows: sums over more columns round otherwise, even over masked ones.
                rounding = self._errors(
                    [*self._own_groups(own_mask=False), self._shared_groups()[0]], len(self.prompts)
                )
            except Exception as error:
                return _undriven(error)
            tolerance = min(tolerance, _TIMES_ROUNDING * rounding + _LEAK_HALF)
        return self._difference(self._shared_groups(), tolerance)

    def _can_be_packed(self) -> bool:
        """Whether rows without padding have the same logits; an architecture where not gets padded ones."""
        return can_pack(self.lm.model) and not self._difference(self._shared_groups(), self.tolerance, packed=True)

    def _difference(self, groups: list[PromptGroup], tolerance: float, *, packed: bool = False) -> str:
        """What is wrong with the logits of these rows; nothing when they are right."""
        try:
            error = self._errors(groups, packed=packed)
        except Exception as error:  # an architecture that takes other arguments may raise anything
            return _undriven(error)
        if not self.leak <= (_LEAK_HALF if self.half else _LEAK):
            return f"questions of one row see each other (logits differ by {self.leak:.2g} of their spread)"
        if not error <= tolerance:
            return f"logits differ from its own forward pass by {error:.2g} of their spread"
        return ""

    def _errors(self, groups: list[PromptGroup], first: int | None = None, *, packed: bool = False) -> float:
        """Root mean square error of the logits of these rows' `first` questions (None: all); `leak` is then the
        difference between the answers to a question that is asked twice among them."""
        lm = self.lm
        batch = collate(groups, lm, 0, with_answers=True, packed=packed)
        logits = lm.logits(batch_hidden(lm, batch, None)[batch.target_at.to(lm.device)]).float()
        lengths = [len(lm.answer_ids[answer]) for answer in self.answers]
        asked = [question for group in groups for question in group.questions][:first]
        logits = logits[: sum(lengths[question] for question in asked)]
        got, own = logits.split([lengths[question] for question in asked]), self.expected.split(lengths)
        twice = [place for place, question in enumerate(asked) if asked.count(question) > 1]
        self.leak = self._error(*(got[place] for place in twice)) if twice else 0.0
        return self._error(logits, torch.cat([own[question] for question in asked]))

    def _difference_of_vectors(self, layout: Layout) -> str:
        """What is wrong when a vector that is no token's stands first in a prompt."""
        lm = self.lm
        prompt = self.prompts[0].copy()
        vector = lm.embed(torch.from_numpy(prompt[:2]).to(lm.device)).mean(0, keepdim=True)
        prompt[0] = SOFT
        groups = group_prompts([prompt], np.zeros(1), self.answers[:1], np.zeros(1), own_mask=not layout.shared)
        try:
            batch = collate(groups, lm, 1, with_answers=False)
            got = lm.logits(batch_hidden(lm, batch, vector)[batch.prompt_end.to(lm.device)])[0].float()
            embeds = torch.cat([vector, lm.embed(torch.from_numpy(prompt[1:]).to(lm.device))])
            own = lm.model(inputs_embeds=embeds[None]).logits[0, -1].float()
        except Exception as error:
            return f"it takes no vectors in place of tokens ({_reason(error)})"
        error = self._error(got, own)
        return "" if error <= self.tolerance else f"a vector in place of a token is off by {error:.2g}"

    def _error(self, one: Tensor, other: Tensor) -> float:
        return float((one - other).square().mean().sqrt()) / max(self.spread, 1e-30)

    def _refusal(self, what: str) -> InputError:
        return InputError(
            f"The language model {self.lm.name} ({self.architecture}) cannot answer questions here: {what}. Choose "
            "another architecture."
        )


def _prompts(lm: LanguageModel) -> list[np.ndarray]:
    """Prompts of ordinary tokens, shorter where the model has few positions."""
    rows = min(len(lm.tokenizer), lm.model.get_input_embeddings().weight.shape[0])
    ordinary = np.setdiff1d(np.arange(rows), np.array(sorted(lm.control.ids), dtype=np.int64))
    rng = np.random.Generator(np.random.Philox(key=[0, 0]))
    answer = max(len(ids) for ids in lm.answer_ids)
    room = (lm.max_positions or 10**6) - answer - _PREFIX - max(_ENDS)
    prefix = rng.choice(ordinary, max(2, _PREFIX + min(0, room)))
    return [np.concatenate([prefix, rng.choice(ordinary, length)]) for length in _ENDS]


def _window(config: Any) -> int | None:
    """The shortest stretch that a layer looks back, where the configuration tells one."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds == {"full_attention"} or (not kinds and getattr(config, "use_sliding_window", True) is False):
        return None
    found = [getattr(config, name, None) for name in _WINDOWS]
    return min((size for size in found if isinstance(size, int) and size > 0), default=None)


def _undriven(error: Exception) -> str:
    return f"its body cannot be driven by embeddings and a mask ({_reason(error)})"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
