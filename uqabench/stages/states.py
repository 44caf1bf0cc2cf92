"""The frozen encoder's outputs, computed once and memory-mapped for alignment and evaluation.

Mean pooling needs one vector a (user, cut); the Q-Former needs every state of the history. Where the encoder is
causal, all cuts of a user whose windows start at the same item share one pass and are slices of its states.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from uqabench.artifact import Artifact, build
from uqabench.config import from_dict
from uqabench.data.packer import plan_batches
from uqabench.data.store import InteractionStore
from uqabench.encoders import UserEncoder, UserEncoderConfig
from uqabench.errors import InputError
from uqabench.questions.questions import QuestionSet
from uqabench.stages.pretrain import TorchBatch, unshared
from uqabench.stages.training import fits_in_memory

logger = logging.getLogger(__name__)


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
    """Memory-mapped outputs. pooled (G, width); states (S, width) with spans (G, 2) into it, or None."""

    pairs: HistoryPairs
    pooled: np.ndarray
    states: np.ndarray | None
    spans: np.ndarray | None

    @classmethod
    def open(cls, artifact: Artifact) -> FrozenStates:
        def load(name: str) -> np.ndarray | None:
            path = artifact.path / name
            return np.load(path, mmap_mode="r") if path.exists() else None

        pairs = np.load(artifact.path / "pairs.npy")
        return cls(HistoryPairs(*pairs.T), load("pooled.npy"), load("states.npy"), load("spans.npy"))

    @property
    def width(self) -> int:
        return self.pooled.shape[1]


def encode_histories(
    store: InteractionStore,
    pretrained: Artifact,
    pairs: HistoryPairs,
    out: Path,
    *,
    keep_states: bool,
    token_budget: int,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Artifact, bool]:
    """Write pooled vectors (and states, when `keep_states`) of all pairs into the artefact folder `out`."""
    config = {"keep_states": keep_states, "token_budget": token_budget, "device": device}
    table = np.stack([pairs.users, pairs.cuts, pairs.starts], axis=1)
    inputs = {"pretrain": pretrained.content, "pairs": _digest(table)}

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        model = load_encoder(pretrained, store, device)
        np.save(folder / "pairs.npy", table)
        with fits_in_memory("states", "states_token_budget", token_budget):
            _encode(model, store, pairs, folder, keep_states, token_budget, device, progress)
        return time.monotonic() - started

    return build(out, "states", config, inputs, make)


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
    keep_states: bool,
    token_budget: int,
    device: str,
    progress: bool,
) -> None:
    users, starts, ends, owner = _passes(pairs, getattr(model.encoder, "causal", False))
    lengths = ends - starts
    width = model.width
    total = int(lengths.sum()) if keep_states else 0
    if progress:
        size = (len(pairs) + total) * width * 4 / 2**20
        logger.info(f"encoding {len(pairs):,} histories in {len(users):,} passes: {size:,.1f} MiB")
    pooled = _new_mapped(folder / "pooled.npy", (len(pairs), width))
    first = np.concatenate([[0], np.cumsum(lengths)])
    states = _new_mapped(folder / "states.npy", (total, width)) if keep_states else None
    by_pass = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[by_pass], np.arange(len(users) + 1))
    batches = plan_batches(lengths, max(token_budget, int(lengths.max())), seed=0, epoch=0, shuffle=False)
    with torch.no_grad():
        for rows in tqdm(batches, desc="encode histories", disable=not progress, leave=False):
            batch = TorchBatch.pack(store, users[rows], starts[rows], ends[rows], torch.device(device))
            output = model.states(batch.items, batch.offsets, batch.timestamps).float()
            for row, part in zip(rows, output.split(batch.offsets.diff().tolist()), strict=True):
                for pair in by_pass[bounds[row] : bounds[row + 1]]:
                    pooled[pair] = part[: pairs.cuts[pair] - starts[row]].mean(0).cpu().numpy()
                if states is not None:
                    states[first[row] : first[row + 1]] = part.cpu().numpy()
    if states is not None:
        begin = first[owner]
        np.save(folder / "spans.npy", np.stack([begin, begin + pairs.cuts - pairs.starts], axis=1))
