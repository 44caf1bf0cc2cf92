"""The chat around a user's message: what a template writes before and after it, and what may not come from data."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from uqabench.errors import InputError
from uqabench.vocabulary import LETTERS

_CONTENT = "\u2042content\u2042"
_ANSWER = "\u2042answer\u2042"
# A generation prompt that opens thoughts: the letter is asked for behind thoughts that are closed and empty.
_OPEN_THOUGHT = re.compile(r"(?P<open>[<\[])(?P<name>think|thinking|thought|reasoning)(?P<close>[>\]])\s*$", re.I)
# What stands for a role in templates whose tokenizer does not know it as one token, such as Llama 2's [INST].
_BRACKETED = re.compile(r"<<?[^<>\[\]\s]+>>?|\[[^<>\[\]\s]+\]")
_BYTE_TOKEN = r"<0x[0-9A-Fa-f]{2}>"
# Arguments that `apply_chat_template` gives the template itself, or that change what it returns.
_RESERVED = frozenset(
    "conversation messages tools documents chat_template add_generation_prompt continue_final_message tokenize padding "
    "truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs processor_kwargs "
    "load_audio_from_video".split()
)


@dataclass(frozen=True)
class Chat:
    """The text `before` and `after` a user's message, and the token ids of each letter's answer.

    `after` ends where the assistant's answer begins: behind what the template itself writes there (an empty block of
    thoughts, a channel). `answer_ids[i]` are the ids that follow when the answer is letter i: the letter, then the end
    of the turn. (" A" and "A" are different tokens in many vocabularies.)
    """

    before: str
    after: str
    answer_ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, tokenizer: Any, name: str, system: str | None = None, template_args: dict[str, Any] | None = None
    ) -> Chat:
        """Read the chat off a tokenizer's template; `name` stands in error messages.

        InputError for a template that is broken, refuses the system message, drops the user's message or has none of
        the arguments, and for a tokenizer that does not keep the letters apart.
        """
        return _Template(tokenizer, name, system, dict(template_args or {})).chat()

    def to_dict(self) -> dict[str, Any]:
        """The chat as JSON values: part of the key of every stage that asks a language model. Templates may write
        today's date."""
        return {"before": self.before, "after": self.after, "answer_ids": [list(ids) for ids in self.answer_ids]}


class _Template:
    def __init__(self, tokenizer: Any, name: str, system: str | None, arguments: dict[str, Any]) -> None:
        self.tokenizer, self.name, self.system, self.arguments = tokenizer, name, system, arguments

    def chat(self) -> Chat:
        prompt = self._render(None)
        self._check_arguments()
        before, found, after = prompt.partition(_CONTENT)
        if not found:
            raise InputError(
                f"The chat template of {self.name} drops the user's message: use another model or template."
            )
        written, blank = self._before_answer(prompt)
        after += written
        if thought := _OPEN_THOUGHT.search(after):
            opening, name, closing = thought.group("open", "name", "close")
            after = f"{after[: thought.start()]}{opening}{name}{closing}\n\n{opening}/{name}{closing}\n\n"
        answers = [self._answer_ids(before, after, letter, blank) for letter in LETTERS]
        if blank and len({ids[0] for ids in answers}) == 1:  # a token of its own: part of every prompt
            after += blank
            answers = [self._answer_ids(before, after, letter, "") for letter in LETTERS]
        if len({ids[0] for ids in answers}) != len(LETTERS):
            raise InputError(
                f"The tokenizer of {self.name} gives two answer letters the same first token: use another."
            )
        return Chat(before, after, tuple(tuple(ids) for ids in answers))

    def _messages(self, answer: str | None, system: str | None) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": _CONTENT})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return messages

    def _apply(self, answer: str | None, system: str | None) -> str:
        return self.tokenizer.apply_chat_template(
            self._messages(answer, system), tokenize=False, add_generation_prompt=answer is None, **self.arguments
        )

    def _render(self, answer: str | None) -> str:
        if reserved := sorted(_RESERVED & set(self.arguments)):
            raise InputError(f"llm.template_args.{reserved[0]} is set by uqabench itself: leave it out.")
        try:
            return self._apply(answer, self.system)
        except Exception as error:  # a template is a program: it may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if self.system and self._takes_no_system(answer):
                raise InputError(
                    f"The chat template of {self.name} takes no system message ({reason}): leave llm.system empty."
                ) from error
            raise InputError(
                f"The chat template of {self.name} cannot be used ({type(error).__name__}: {reason}): mend it, or put "
                "a template that works into chat_template.jinja beside the tokenizer."
            ) from error

    def _takes_no_system(self, answer: str | None) -> bool:
        try:
            self._apply(answer, None)
        except Exception:
            return False
        return True

    def _check_arguments(self) -> None:
        """Jinja passes over an argument that it does not know, so a misspelt one would change nothing, silently."""
        template = self.tokenizer.chat_template
        if not self.arguments or not isinstance(template, str):
            return
        known = set(re.findall(r"[A-Za-z_]\w*", template))
        for argument in self.arguments:
            if argument not in known:
                raise InputError(
                    f"llm.template_args.{argument}: the chat template of {self.name} has no such argument: read it for "
                    "the names that it knows."
                )

    def _before_answer(self, prompt: str) -> tuple[str, str]:
        """What the template writes between its generation prompt and an answer: the text, and the white space last."""
        turn = self._render(_ANSWER)
        if not turn.startswith(prompt):
            return "", ""
        written, found, _ = turn[len(prompt) :].partition(_ANSWER)
        if not found:
            return "", ""
        text = written.rstrip()
        return text, written[len(text) :]

    def _answer_ids(self, before: str, after: str, letter: str, blank: str) -> list[int]:
        prompt = f"{before}1 + 1 = ?{after}"
        turn = self._render(letter).replace(_CONTENT, "1 + 1 = ?")
        # Templates that write a turn differently from their own generation prompt get the letter and the end token.
        full = (
            turn.rstrip("\n")
            if turn.startswith(prompt + blank + letter)
            else prompt + letter + (self.tokenizer.eos_token or "")
        )
        prompt_ids, ids = encode(self.tokenizer, [prompt, full])
        if ids[: len(prompt_ids)] != prompt_ids:
            raise InputError(
                f"The tokenizer of {self.name} merges the answer letter into the prompt: use another model."
            )
        return ids[len(prompt_ids) :]


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens beyond those that stand in it."""
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]


class ControlTokens:
    """The tokens that give a prompt its structure, and texts without them.

    They are the tokenizer's special and added tokens, the byte tokens of a vocabulary with byte fallback, and the
    bracketed marks of the chat template. `ids` are those that the vocabulary knows.
    """

    def __init__(self, tokenizer: Any, chat: Chat) -> None:
        tokens = {str(token): bool(token.special) for token in tokenizer.added_tokens_decoder.values()}
        tokens |= {str(token): True for token in tokenizer.all_special_tokens}
        marks = {text.strip() for text, special in tokens.items() if special or _is_mark(text.strip())}
        marks |= set(_BRACKETED.findall(chat.before + "\n" + chat.after))
        marks.discard("")
        vocabulary = tokenizer.get_vocab()
        # Ordinary text may have characters that the vocabulary lacks: the token for them gives no structure.
        known = {text for text in tokens if text in vocabulary and text.strip() in marks} - {tokenizer.unk_token}
        self.ids = frozenset(vocabulary[text] for text in known)
        # The longest first: a token that begins like another is split as itself.
        literal = "|".join(re.escape(mark) for mark in sorted(marks, key=lambda mark: (-len(mark), mark)))
        self._pattern = re.compile("|".join(part for part in (literal, _BYTE_TOKEN) if part), re.IGNORECASE)

    def split(self, text: str) -> str:
        """`text` with a blank inside every control token, so that it is read as plain text; others are unchanged."""
        if not self._pattern.search(text):
            if text.isascii():
                return text
            # Tokenizers may normalise what they read: look for a token behind full-width or invisible characters too.
            plain = _without_format(unicodedata.normalize("NFKC", text))
            if not self._pattern.search(plain):
                return text
            text = plain
        while self._pattern.search(text):
            text = self._pattern.sub(_broken, text)
        return text

    def count(self, rows: list[list[int]]) -> np.ndarray:
        """How many control tokens each row of token ids has, int64 (rows,)."""
        lengths = [len(row) for row in rows]
        found = np.isin(np.array([token for row in rows for token in row], dtype=np.int64), sorted(self.ids))
        return np.bincount(np.repeat(np.arange(len(rows)), lengths), weights=found, minlength=len(rows)).astype(
            np.int64
        )


def words_only(text: str) -> str:
    """`text` with blanks in place of all but letters, digits and the punctuation of sentences."""
    return re.sub(r"[^\w\s.,:;!?'()%/+-]", " ", unicodedata.normalize("NFKC", text))


def _is_mark(text: str) -> bool:
    """Whether an added token that is not special looks like one: ordinary words may be added to a vocabulary too."""
    return any(not (character.isalnum() or character.isspace()) for character in text)


def _broken(match: re.Match[str]) -> str:
    text = match.group()
    return " " if len(text) == 1 else f"{text[0]} {text[1:]}"


def _without_format(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cf")
