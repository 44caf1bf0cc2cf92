"""Batches of questions that share a prefix.

Several questions are asked about one user at one cut. Their prompts begin alike (soft prompt, system message,
history), so a row of a batch holds that prefix once, followed by the rest of each prompt; the attention mask lets
each rest see the prefix and itself only, and positions restart after the prefix. The result equals one row a
question, at a fraction of the tokens (a 50-item text history with six questions: 3.9 times fewer).

Long prefixes are packed (`uqabench.llm.packed`): rows follow one another without padding. Not every architecture can be
driven so (`uqabench.llm.layout`): others get one question a row, and mask and count for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from uqabench.llm.language_model import LanguageModel
from uqabench.llm.packed import Stretches, attend_by_stretches
from uqabench.llm.prompts import SOFT


@dataclass(frozen=True)
class PromptGroup:
    """Questions with one prefix. `key` indexes the soft prompt; `questions` their rows; `answers` letters 0..3.

    own_mask: one question, for which the model makes mask and positions by itself. keys: the soft prompt of each
    question, in place of `key`, where they are about several users; none then stands in the prefix.
    """

    key: int
    prefix: np.ndarray
    rests: list[np.ndarray]
    questions: list[int]
    answers: list[int]
    own_mask: bool = False
    keys: list[int] | None = None

    def key_of(self, question: int) -> int:
        """The soft prompt of the group's `question`-th question."""
        return self.key if self.keys is None else self.keys[question]

    def with_keys(self, new: Callable[[int], int]) -> PromptGroup:
        """The same questions with `new(key)` in place of each key."""
        keys = None if self.keys is None else [new(key) for key in self.keys]
        return replace(self, key=new(self.key), keys=keys)

    def n_tokens(self) -> int:
        return len(self.prefix) + sum(len(rest) for rest in self.rests)


@dataclass(frozen=True)
class GroupBatch:
    """R rows padded to L tokens, with the places where Q answers are read.

    ids (R, L); spans (R, L), 0 in the prefix, from 1 in each rest and -1 at padding, with position_ids (R, L); or mask
    (R, L), 1 at tokens and 0 at padding, with neither, where the model makes mask and positions by itself; or, packed,
    ids and position_ids (1, all tokens) with `stretches`; prompt_end (Q,) flat index of each prompt's last token;
    questions, answers (Q,); target_at, targets (M,) flat index and token id of every assistant token;
    soft_at (S,) flat index of soft slots, soft_from (S,) row of the flattened (keys × n_soft) soft prompts.
    """

    ids: Tensor
    position_ids: Tensor | None
    spans: Tensor | None
    mask: Tensor | None
    prompt_end: Tensor
    questions: Tensor
    answers: Tensor
    target_at: Tensor
    targets: Tensor
    soft_at: Tensor
    soft_from: Tensor
    stretches: Stretches | None = None

    def trained(self) -> dict[str, Tensor]:
        """What a training step computes with, by field."""
        names = ("ids", "position_ids", "spans", "mask", "target_at", "targets", "soft_at", "soft_from")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def common_prefix(prompts: list[np.ndarray]) -> int:
    """Length of the longest common prefix that leaves at least one token to every prompt and cuts no soft prompt."""
    length = min(len(prompt) for prompt in prompts) - 1
    stack = np.stack([prompt[:length] for prompt in prompts])
    differs = np.flatnonzero((stack != stack[0]).any(axis=0))
    shared = int(differs[0]) if len(differs) else length
    if prompts[0][shared] == SOFT:  # a soft prompt is kept in one piece
        ordinary = np.flatnonzero(prompts[0][:shared] != SOFT)
        shared = int(ordinary[-1]) + 1 if len(ordinary) else 0
    return shared


def group_prompts(
    prompts: list[np.ndarray],
    keys: np.ndarray,
    answers: np.ndarray,
    rows: np.ndarray,
    *,
    max_questions: int = 16,
    max_tokens: int | None = None,
    answer_tokens: int = 0,
    own_mask: bool = False,
) -> list[PromptGroup]:
    """Group prompts by key, in order of first appearance; `rows` are the questions' numbers. Groups are split
    beyond `max_questions`, for the attention of a row costs its length squared, and beyond `max_tokens`, where each
    prompt is followed by `answer_tokens`. With `own_mask` every group is one question."""
    members: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(int(key), []).append(index)
    groups = []
    for key, indices in members.items():
        for part in _parts(prompts, indices, 1 if own_mask else max_questions, max_tokens, answer_tokens):
            shared = common_prefix([prompts[i] for i in part])
            rests = [prompts[i][shared:] for i in part]
            numbers, letters = [int(rows[i]) for i in part], [int(answers[i]) for i in part]
            groups.append(PromptGroup(key, prompts[part[0]][:shared], rests, numbers, letters, own_mask))
    return groups


def group_over_users(
    prompts: list[np.ndarray],
    keys: np.ndarray,
    answers: np.ndarray,
    rows: np.ndarray,
    *,
    max_questions: int = 16,
    max_tokens: int | None = None,
    answer_tokens: int = 0,
) -> list[PromptGroup]:
    """Group prompts with the longest common beginnings, whomever they are about; arguments as `group_prompts`.

    The soft prompt has to stand behind what they share: the beginning ends before the first soft slot at the latest.
    """
    # Of prompts in the order of their tokens, neighbours share the longest beginnings.
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].tolist())
    groups = []
    for part in _parts(prompts, order, max_questions, max_tokens, answer_tokens):
        soft = np.flatnonzero(prompts[part[0]] == SOFT)
        shared = min([common_prefix([prompts[i] for i in part]), *soft[:1].tolist()])
        own = [int(keys[i]) for i in part]
        rests, numbers = [prompts[i][shared:] for i in part], [int(rows[i]) for i in part]
        letters = [int(answers[i]) for i in part]
        groups.append(PromptGroup(own[0], prompts[part[0]][:shared], rests, numbers, letters, keys=own))
    return groups


def _parts(
    prompts: list[np.ndarray], indices: list[int], max_questions: int, max_tokens: int | None, answer_tokens: int
) -> Iterator[list[int]]:
    """`indices` in order, cut into rows of at most so many questions and tokens."""
    start = 0
    while start < len(indices):
        part = indices[start : start + max_questions]
        if max_tokens is not None:
            while len(part) > 1 and _row_tokens([prompts[i] for i in part]) + len(part) * answer_tokens > max_tokens:
                part = part[:-1]
        yield part
        start += len(part)


def _row_tokens(prompts: list[np.ndarray]) -> int:
    return sum(map(len, prompts)) - (len(prompts) - 1) * common_prefix(prompts)


def plan_group_batches(
    groups: list[PromptGroup],
    token_budget: int,
    *,
    rng: np.random.Generator | None = None,
) -> list[list[PromptGroup]]:
    """Batches of groups of similar length within `token_budget` padded tokens, shuffled when `rng` is given."""
    lengths = np.array([group.n_tokens() for group in groups])
    # Noise of about a fifth of the length keeps padding low and still mixes the batches from epoch to epoch.
    order = np.argsort(lengths * rng.uniform(0.8, 1.25, len(groups)) if rng is not None else lengths, kind="stable")
    batches: list[list[PromptGroup]] = []
    longest = 0
    for index in order:
        group = groups[index]
        longest_with = max(longest, int(lengths[index]))
        full = batches and (len(batches[-1]) + 1) * longest_with > token_budget
        if not batches or full:
            batches.append([])
            longest_with = int(lengths[index])
        batches[-1].append(group)
        longest = longest_with
    if rng is not None:
        return [batches[i] for i in rng.permutation(len(batches))]
    return batches


def number_keys(groups: list[PromptGroup]) -> tuple[np.ndarray, list[PromptGroup]]:
    """The soft prompts (K,) that these groups ask for, ascending, and the groups with their places among them."""
    keys = np.unique([key for group in groups for key in (group.key, *(group.keys or ()))])
    local = {key: place for place, key in enumerate(keys.tolist())}
    return keys, [group.with_keys(local.__getitem__) for group in groups]


def _row_spans(group: PromptGroup, answers: list[list[int]] | None) -> Iterator[np.ndarray]:
    """The prefix, then each rest with its answer appended (all but the last token, which predicts nothing)."""
    yield group.prefix
    for i, rest in enumerate(group.rests):
        tail = answers[i][:-1] if answers is not None else []
        yield np.concatenate([rest, np.array(tail, dtype=np.int64)])


def collate(
    groups: list[PromptGroup], lm: LanguageModel, n_soft: int, *, with_answers: bool, packed: bool = False
) -> GroupBatch:
    """Lay groups out as rows. `with_answers` appends the right answers' tokens for training. Either all groups or none
    have their model's own mask; others can be `packed`, one behind the other without padding."""
    answers = [[lm.answer_ids[answer] for answer in group.answers] if with_answers else None for group in groups]
    rows = [list(_row_spans(group, answer)) for group, answer in zip(groups, answers, strict=True)]
    lengths = [sum(len(ids) for ids in row) for row in rows]
    own_mask = groups[0].own_mask
    width = max(lengths)
    starts = np.cumsum([0, *lengths]) if packed else np.arange(len(rows) + 1) * width
    shape = (1, int(starts[-1])) if packed else (len(rows), width)
    ids = np.zeros(shape, dtype=np.int64)
    position = np.zeros(shape, dtype=np.int64)
    span = np.full(shape, -1, dtype=np.int32)
    owner = np.zeros(shape, dtype=np.int64)
    prompt_end, target_at, targets = [], [], []
    for r, row in enumerate(rows):
        column, shared = int(starts[r]), len(row[0])
        for s, tokens in enumerate(row):
            end = column + len(tokens)
            ids.ravel()[column:end], span.ravel()[column:end] = tokens, s
            owner.ravel()[column:end] = groups[r].key_of(s - 1) if s else groups[r].key
            position.ravel()[column:end] = np.arange(len(tokens)) + (shared if s else 0)
            if s:
                q = s - 1
                last = column + len(groups[r].rests[q]) - 1
                prompt_end.append(last)
                if answers[r] is not None:
                    target_at.extend(range(last, last + len(answers[r][q])))
                    targets.extend(answers[r][q])
            column = end
    soft_at = np.flatnonzero(ids.ravel() == SOFT)
    soft_from = owner.ravel()[soft_at] * max(n_soft, 1)
    if n_soft:
        soft_from = soft_from + np.tile(np.arange(n_soft), len(soft_at) // n_soft)
    tensor = torch.from_numpy
    return GroupBatch(
        ids=tensor(np.maximum(ids, 0)),
        position_ids=None if own_mask else tensor(position),
        spans=None if own_mask or packed else tensor(span),
        mask=tensor((span >= 0).astype(np.int64)) if own_mask else None,
        prompt_end=torch.tensor(prompt_end),
        questions=torch.tensor([q for group in groups for q in group.questions]),
        answers=torch.tensor([a for group in groups for a in group.answers]),
        target_at=torch.tensor(target_at, dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        soft_at=tensor(soft_at),
        soft_from=tensor(soft_from),
        stretches=_stretches(rows) if packed else None,
    )


def _stretches(rows: list[list[np.ndarray]]) -> Stretches:
    return Stretches.of([len(row[0]) for row in rows], [[len(ids) for ids in row[1:]] for row in rows])


def attention_mask(spans: Tensor) -> Tensor:
    """Additive mask (R, 1, L, L) of `GroupBatch.spans`: causal, own span or the prefix; padding sees itself only."""
    seen, sees = spans[:, None, :], spans[:, :, None]
    allowed = ((seen == 0) | (seen == sees)) & (seen >= 0)
    allowed = torch.tril(allowed) & (sees >= 0) | torch.eye(spans.shape[1], dtype=torch.bool, device=spans.device)
    mask = torch.zeros(allowed.shape, device=spans.device)
    return mask.masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None]


def batch_hidden(
    lm: LanguageModel, batch: GroupBatch, soft: Tensor | None, *, layer: int | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Hidden states (R·L, width), with `layer` also those behind so many layers; `soft` (keys · n_soft, width) goes to
    the soft slots."""
    device = lm.device
    embeds = lm.embed(batch.ids.to(device))
    rows, length, width = embeds.shape
    embeds = embeds.reshape(rows * length, width)
    if len(batch.soft_at):
        if soft is None:
            raise ValueError("soft: the batch has soft-prompt slots but no soft prompts were given")
        vectors = soft.index_select(0, batch.soft_from.to(device)).to(embeds.dtype)
        embeds = embeds.index_copy(0, batch.soft_at.to(device), vectors)
    embeds = embeds.reshape(rows, length, width)
    positions = None if batch.position_ids is None else batch.position_ids.to(device)
    if batch.stretches is not None:
        with attend_by_stretches(lm.body, batch.stretches) as mask:
            hidden = lm.hidden(embeds, mask, positions, layer=layer)
    else:
        # Made where it is used: it has as many times more numbers than the batch as rows have tokens.
        spans = batch.spans
        mask = batch.mask.to(device) if spans is None else attention_mask(spans.to(device)).to(embeds.dtype)
        hidden = lm.hidden(embeds, mask, positions, layer=layer)
    if layer is None:
        return hidden.reshape(rows * length, -1)
    return tuple(states.reshape(rows * length, -1) for states in hidden)


def answer_loss(lm: LanguageModel, batch: GroupBatch, hidden: Tensor) -> Tensor:
    """Cross entropy of the assistant's tokens, summed over a question's tokens, averaged over questions."""
    at = batch.target_at.to(hidden.device)
    logits = lm.logits(hidden.index_select(0, at))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = torch.nn.functional.cross_entropy(logits, batch.targets.to(hidden.device), reduction="sum")
    return loss / len(batch.questions)


def letter_logits(lm: LanguageModel, batch: GroupBatch, hidden: Tensor) -> Tensor:
    """Logits (Q, 4) of the four letters at the end of each prompt."""
    return lm.letter_logits(hidden.index_select(0, batch.prompt_end.to(hidden.device)))
