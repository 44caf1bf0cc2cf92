"""The frozen encoder's outputs, computed once and memory-mapped for alignment and evaluation.

An integration needs a few pooled vectors a (user, cut), or every state of the history. Where the encoder is causal,
all cuts of a user whose windows start at the same item share one pass and are prefixes of its states.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from uqabench.artifact import Artifact, Stage
from uqabench.data.packer import plan_batches
from uqabench.data.store import InteractionStore
from uqabench.encoders import UserEncoder
from uqabench.errors import InputError
from uqabench.integrations import Integration, Pooling
from uqabench.kernels.checks import host_array
from uqabench.questions.questions import QuestionSet
from uqabench.settings.encoders import UserEncoderConfig
from uqabench.settings.reader import from_dict
from uqabench.stages.encoder_weights import unshared
from uqabench.stages.packed import TorchBatch
from uqabench.stages.precision import use_tensor_cores
from uqabench.stages.training import fits_in_memory

logger = logging.getLogger(__name__)

SHARED_BYTES = 512 * 2**20  # of vectors that wait for the stages that keep them


@dataclass(frozen=True)
class HistoryPairs:
    """Unique (user, cut) pairs of question sets. users, cuts, starts (G,): the history is items [start, cut)."""

    users: np.ndarray
    cuts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, question_sets: list[QuestionSet]) -> HistoryPairs:
        """The pairs of all sets; each history is as long as its own set says. InputError where two sets disagree."""
        columns = [np.stack([q.user, q.cut, np.maximum(0, q.cut - q.n_history)], axis=1) for q in question_sets]
        pairs = np.unique(np.concatenate(columns).astype(np.int64), axis=0)
        twice = np.flatnonzero((np.diff(pairs[:, :2], axis=0) == 0).all(axis=1))
        if len(twice):
            user, cut, _ = pairs[twice[0]]
            lengths = " and ".join(str(q.n_history) for q in question_sets)
            raise InputError(
                f"user {user}, cut {cut}: two question sets ask about it with histories of {lengths} items: give "
                "both sets the same `history`."
            )
        return cls(*pairs.T)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """Items (G,) of each history."""
        return self.cuts - self.starts

    def keys(self, questions: QuestionSet) -> np.ndarray:
        """Index (Q,) of each question's pair."""
        span = int(self.cuts.max()) + 1
        flat = self.users * span + self.cuts
        return np.searchsorted(flat, questions.user.astype(np.int64) * span + questions.cut)


def load_encoder(artifact: Artifact, store: InteractionStore, device: str = "cpu") -> UserEncoder:
    """A pre-trained UserEncoder in evaluation mode, frozen."""
    config = from_dict(UserEncoderConfig, artifact.json("encoder.json"), "encoder.json")
    model = UserEncoder.build(config, store.catalogue)
    path = artifact.path / "model.safetensors"
    try:
        weights = load_file(path)
        unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    except Exception as error:  # safetensors and torch raise several types for damaged or foreign files
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit the encoder ({reason}): run pretrain again.") from error
    if unexpected:
        raise InputError(f"{path} holds unknown weights ({', '.join(unexpected[:3])}): run pretrain again.")
    lost = unshared(model).keys() - weights.keys()
    if lost:
        raise InputError(f"{path} lacks the weights {', '.join(sorted(lost)[:3])}: run pretrain again.")
    return model.to(device).eval().requires_grad_(False)


@dataclass(frozen=True)
class FrozenStates:
    """Memory-mapped outputs of an encoder of this width, by `kept` (see `Integration`).

    Either pooled (G, n_vectors, width), or states (S, width) with spans (G, 2) into it; the others are None.
    scoring: how the encoder scores items, where its pooling asks for it: logits (V,) of a state (width,) are
    item_table (V, item_dim) @ (head_weight (item_dim, width) @ state + head_bias (item_dim,)).
    """

    pairs: HistoryPairs
    width: int
    kept: str
    pooled: np.ndarray | None
    states: np.ndarray | None
    spans: np.ndarray | None
    scoring: dict[str, Tensor] | None = None

    @classmethod
    def open(cls, artifact: Artifact) -> FrozenStates:
        pairs = HistoryPairs(*np.load(artifact.path / "pairs.npy").T)
        config = artifact.manifest["config"]
        if config["vectors"]:
            pooled = np.load(artifact.path / "pooled.npy", mmap_mode="r").reshape(len(pairs), config["vectors"], -1)
            scoring = artifact.path / "scoring.safetensors"
            scores = load_file(scoring) if scoring.exists() else None
            return cls(pairs, pooled.shape[2], config["kept"], pooled, None, None, scores)
        states = np.load(artifact.path / "states.npy", mmap_mode="r")
        spans = np.load(artifact.path / "spans.npy", mmap_mode="r")
        return cls(pairs, states.shape[1], config["kept"], None, states, spans)


@dataclass
class SharedPass:
    """What several integrations pool of one encoder's states of the same histories: whoever is built first makes the
    pass, and leaves the others' vectors here.

    asked: the poolings, by `kept`. pooled: vectors float32 (G, vectors · width) that wait to be taken. seconds: what
    the pass took, which counts for every integration.
    """

    asked: dict[str, Pooling] = field(default_factory=dict)
    pooled: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0

    def ask(self, integration: Integration) -> None:
        if integration.pooling is not None:
            self.asked[integration.kept] = integration.pooling

    def others(self, kept: str, n_pairs: int, width: int) -> dict[str, Pooling]:
        """The other integrations' poolings; none where the vectors would take more than SHARED_BYTES."""
        others = {name: pooling for name, pooling in self.asked.items() if name != kept}
        size = 4 * n_pairs * width * sum(pooling.n_vectors for pooling in others.values())
        return others if size <= SHARED_BYTES else {}


def encode_histories(
    store: InteractionStore,
    pretrained: Artifact,
    pairs: HistoryPairs,
    *,
    integration: Integration,
    token_budget: int,
    device: str = "cpu",
    progress: bool = True,
    shared: SharedPass | None = None,
) -> Stage:
    """Write what `integration` needs of all pairs into the artefact folder `out`: pooled vectors, or all states.

    shared: the pass over the same pairs that other integrations need, too.
    """
    shared = SharedPass() if shared is None else shared

    def fill(folder: Path) -> float:
        started = time.monotonic()
        use_tensor_cores(torch.device(device))
        model = load_encoder(pretrained, store, device)
        found, before = shared.pooled.pop(integration.kept, None), 0.0
        if found is not None:
            _new_mapped(folder / "pooled.npy", found.shape)[:] = found
            before = shared.seconds
        else:
            with fits_in_memory("states", "states_token_budget", token_budget):
                others = shared.others(integration.kept, len(pairs), model.width)
                shared.pooled = _encode(
                    model, store, pairs, folder, integration.pooling, others, token_budget, device, progress
                )
            shared.seconds = time.monotonic() - started
        if integration.pooling and integration.pooling.scores:
            save_file(_scoring(model), folder / "scoring.safetensors")
        return before + time.monotonic() - started

    settings = {"token_budget": token_budget, "device": device}
    return states_stage(pairs, integration, settings, {"pretrain": pretrained.content}, fill)


def states_stage(
    pairs: HistoryPairs,
    integration: Integration,
    settings: dict[str, Any],
    inputs: dict[str, str],
    fill: Callable[[Path], float],
) -> Stage:
    """The stage whose folder `FrozenStates.open` reads. `fill` writes pooled.npy, or states.npy and spans.npy, of the
    pairs and returns its seconds; settings and inputs: what else than pairs and integration decides their content."""
    pooling = integration.pooling
    config = {"kept": integration.kept, "vectors": pooling.n_vectors if pooling else 0, **settings}
    table = np.stack([pairs.users, pairs.cuts, pairs.starts], axis=1)

    def make(folder: Path, work: Path) -> float:
        np.save(folder / "pairs.npy", table)
        return fill(folder)

    return Stage("states", config, {**inputs, "pairs": _digest(table)}, make)


def _scoring(model: UserEncoder) -> dict[str, Tensor]:
    head = model.score_head
    weights = {"item_table": model.item_weight, "head_weight": head.weight, "head_bias": head.bias}
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}


def _digest(table: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()


def _passes(pairs: HistoryPairs, causal: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct encoder passes (users, starts, ends) and the pass (G,) that each pair is cut from."""
    columns = [pairs.users, pairs.starts] if causal else [pairs.users, pairs.starts, pairs.cuts]
    unique, owner = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    owner = owner.ravel()
    ends = np.zeros(len(unique), dtype=np.int64)
    np.maximum.at(ends, owner, pairs.cuts)
    return unique[:, 0], unique[:, 1], ends, owner


def _new_mapped(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A new float32 .npy file of that shape, mapped for writing."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    # Writing into a mapping that the disk has no room for is a fatal signal; reserving the room first is an error.
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _encode(
    model: UserEncoder,
    store: InteractionStore,
    pairs: HistoryPairs,
    folder: Path,
    pooling: Pooling | None,
    others: Mapping[str, Pooling],
    token_budget: int,
    device: str,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Write pooled.npy (G, vectors · width), a pair's vectors side by side, or else states.npy and spans.npy.

    Returns what `others` pool, in arrays like pooled.npy.
    """
    users, starts, ends, owner = _passes(pairs, getattr(model.encoder, "causal", False))
    lengths = ends - starts
    first = np.concatenate([[0], np.cumsum(lengths)])  # of each pass in states.npy
    shape = (len(pairs), pooling.n_vectors * model.width) if pooling else (int(first[-1]), model.width)
    if progress:
        size = shape[0] * shape[1] * 4
        logger.info(f"encoding {len(pairs):,} histories in {len(users):,} passes: {size / 2**20:,.1f} MiB")
    kept = _new_mapped(folder / ("pooled.npy" if pooling else "states.npy"), shape)
    if pooling is None:
        np.save(folder / "spans.npy", np.stack([first[owner], first[owner] + pairs.lengths], axis=1))
    made = {name: np.empty((len(pairs), each.n_vectors * model.width), np.float32) for name, each in others.items()}
    pooled = [(others[name], array) for name, array in made.items()] + ([(pooling, kept)] if pooling else [])
    by_pass = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[by_pass], np.arange(len(users) + 1))
    batches = plan_batches(lengths, max(token_budget, int(lengths.max())), seed=0, epoch=0, shuffle=False)
    with torch.no_grad():
        for rows in tqdm(batches, desc="encode histories", disable=not progress, leave=False):
            batch = TorchBatch.pack(store, users[rows], starts[rows], ends[rows], torch.device(device), model)
            output = model.states(batch.items, batch.offsets, batch.timestamps, batch.plan).float()
            if pooling is None:
                kept[_ranges(first[rows], lengths[rows])] = output.cpu().numpy()
            if not pooled:
                continue
            counts = bounds[rows + 1] - bounds[rows]
            cut = by_pass[_ranges(bounds[rows], counts)]  # the pairs that are cut from this batch, pass by pass
            begin = np.repeat(host_array(batch.offsets)[:-1], counts)
            for some in _within(pairs.lengths[cut], token_budget):
                spans = _spans(output, begin[some], pairs.lengths[cut[some]])
                for each, array in pooled:
                    array[cut[some]] = each(*spans).flatten(1).cpu().numpy()
    return made


def _spans(states: Tensor, begin: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """Spans of packed states (T, width), each `lengths` (n,) rows from `begin` (n,) on: packed anew, with offsets."""
    rows = torch.from_numpy(_ranges(begin, lengths)).to(states.device)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).to(states.device)
    return states.index_select(0, rows), offsets


def _ranges(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenated int64 ranges [begin, begin + length)."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(begin - (ends - lengths), lengths)


def _within(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Indices of `lengths` in runs whose sums stay near the budget: prefixes of one pass repeat its states."""
    part = (np.cumsum(lengths) - lengths) // budget
    return np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(part)) + 1)
