"""Stage 1: pre-train a user encoder on next-item prediction (paper §3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from uqabench.artifact import Stage
from uqabench.data.packer import pack, plan_batches, windows
from uqabench.data.store import InteractionStore
from uqabench.encoders import UserEncoder
from uqabench.errors import RunError
from uqabench.files import write_json
from uqabench.kernels import info_nce, linear_cross_entropy, linear_rank
from uqabench.settings.reader import key_dict, to_dict
from uqabench.settings.stages import PretrainConfig
from uqabench.stages.distributed import processes
from uqabench.stages.distributed.catalogue import share_item_table, whole_item_table
from uqabench.stages.distributed.data_parallel import new_trainer
from uqabench.stages.distributed.shares import SharedPretrainLoss, share_sequences, whole_step
from uqabench.stages.training import fits_in_memory, seed_everything

CUTOFFS = (1, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class TorchBatch:
    """A packed batch as tensors: items (T,), offsets (B+1,), timestamps (T,) or None."""

    items: Tensor
    offsets: Tensor
    timestamps: Tensor | None

    @classmethod
    def pack(
        cls, store: InteractionStore, users: np.ndarray, starts: np.ndarray, ends: np.ndarray, device: torch.device
    ) -> TorchBatch:
        packed = pack(store, users, starts, ends)
        stamps = None if packed.timestamps is None else torch.from_numpy(packed.timestamps).to(device)
        return cls(torch.from_numpy(packed.items).to(device), torch.from_numpy(packed.offsets).to(device), stamps)


def next_item_labels(batch: TorchBatch) -> tuple[Tensor, Tensor]:
    """Positions (M,) that have a successor in their sequence, and that successor's item (M,)."""
    labelled = torch.ones(len(batch.items), dtype=torch.bool, device=batch.items.device)
    lengths = batch.offsets.diff()
    labelled[batch.offsets[1:][lengths > 0] - 1] = False
    at = labelled.nonzero().squeeze(1)
    return at, batch.items[at + 1]


class PretrainLoss:
    """Next-item loss of a packed batch under one objective."""

    def __init__(self, model: UserEncoder, config: PretrainConfig, popularity: np.ndarray) -> None:
        self.model, self.config = model, config
        share = (popularity + 1.0) / (popularity.sum() + len(popularity))
        self.log_q = torch.from_numpy(np.log(share).astype(np.float32))

    def queries(self, batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """The M queries (M, item_dim) of a batch whose next item is known, and those items (M,)."""
        states = self.model.states(batch.items, batch.offsets, batch.timestamps)
        at, targets = next_item_labels(batch)
        return self.model.queries(states.index_select(0, at)).float(), targets

    def __call__(self, batch: TorchBatch) -> tuple[Tensor, int]:
        queries, targets = self.queries(batch)
        if self.config.objective == "sl":
            return linear_cross_entropy(queries, self.model.item_weight, targets), len(batch.items)
        positives = normalize(torch.nn.functional.embedding(targets, self.model.item_weight), dim=-1)
        log_q = self.log_q.to(targets.device)[targets]
        loss = info_nce(normalize(queries, dim=-1), positives, targets, log_q, self.config.temperature)
        return loss, len(batch.items)


def training_batches(store: InteractionStore, config: PretrainConfig, epoch: int) -> list[tuple[np.ndarray, ...]]:
    """(users, starts, ends) of each batch of an epoch, over training users only."""
    users, starts, ends = windows(
        store, store.users("train"), config.length, mode=config.windows, seed=config.seed, epoch=epoch
    )
    useful = ends - starts >= 2  # a single item has no next one
    users, starts, ends = users[useful], starts[useful], ends[useful]
    batches = []
    for rows in plan_batches(ends - starts, config.token_budget, seed=config.seed, epoch=epoch):
        for begin in range(0, len(rows), config.batch_size):
            part = rows[begin : begin + config.batch_size]
            batches.append((users[part], starts[part], ends[part]))
    return batches


def last_item_ranks(model: UserEncoder, store: InteractionStore, config: PretrainConfig) -> tuple[Tensor, float]:
    """Rank (U,) of each evaluation user's last item given the N before it, and the perplexity of those items.

    RunError when the perplexity is not finite: the encoder diverged.
    """
    users = store.users("evaluation")
    lengths = store.offsets[users + 1] - store.offsets[users]
    users, lengths = users[lengths >= 2], lengths[lengths >= 2]
    ends = lengths - 1
    starts = np.maximum(0, ends - config.length)
    weight = model.item_weight.detach()
    if config.objective == "cl":
        weight = normalize(weight, dim=-1)
    ranks, nll = torch.zeros(len(users), dtype=torch.int64), torch.zeros(len(users))
    model.eval()
    with torch.no_grad():
        for rows in plan_batches(ends - starts, config.token_budget, seed=0, epoch=0, shuffle=False):
            batch = TorchBatch.pack(store, users[rows], starts[rows], ends[rows], weight.device)
            states = model.states(batch.items, batch.offsets, batch.timestamps)
            queries = model.queries(states.index_select(0, batch.offsets[1:] - 1)).float()
            if config.objective == "cl":
                queries = normalize(queries, dim=-1) / config.temperature
            last = store.items[store.offsets[users[rows]] + ends[rows]]
            target = torch.from_numpy(last.astype(np.int64)).to(weight.device)
            ranks[rows] = linear_rank(queries, weight, target).cpu()
            nll[rows] = linear_cross_entropy(queries, weight, target, reduction="none").cpu()
    model.train()
    perplexity = float(nll.double().mean().exp())
    if not math.isfinite(perplexity):
        raise RunError(
            f"pretrain {config.encoder.encoder}: the perplexity of the evaluation users' last items became "
            f"{perplexity}: lower lr."
        )
    return ranks, perplexity


def ranking_metrics(ranks: Tensor) -> dict[str, float]:
    """recall@k and NDCG@k in percent, for one relevant item a user whose rank counts from 0."""
    ranks = ranks.double()
    gain = 1.0 / torch.log2(ranks + 2.0)
    metrics = {}
    for k in CUTOFFS:
        metrics[f"recall@{k}"] = 100.0 * float((ranks < k).double().mean())
        metrics[f"ndcg@{k}"] = 100.0 * float(torch.where(ranks < k, gain, 0.0).mean())
    return metrics


def popularity_metrics(store: InteractionStore) -> dict[str, float]:
    """The same metrics for ranking every item by its number of training interactions."""
    users = store.users("evaluation")
    users = users[store.offsets[users + 1] - store.offsets[users] >= 2]
    last = store.items[store.offsets[users + 1] - 1]
    order = np.argsort(-store.catalogue.popularity, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return ranking_metrics(torch.from_numpy(rank[last]))


def pretrain(
    store: InteractionStore,
    config: PretrainConfig,
    *,
    device: str = "cpu",
    progress: bool = True,
) -> Stage:
    """Train an encoder into the artefact folder `out` (model.safetensors, metrics.json); reuse it when unchanged."""

    def make(folder: Path, work: Path) -> float:
        with fits_in_memory(f"pretrain {config.encoder.encoder}", "pretrain.token_budget", config.token_budget):
            return _train(store, folder, work, config, torch.device(device), progress)

    settings = {**key_dict(config), "device": device}
    return Stage("pretrain", settings, {"data": store.content_hash}, make, together=True)


def _train(
    store: InteractionStore, out: Path, work: Path, config: PretrainConfig, device: torch.device, progress: bool
) -> float:
    seed_everything(config.seed, device)
    model = UserEncoder.build(config.encoder, store.catalogue).to(device)
    share_item_table(model)
    loss = PretrainLoss(model, config, store.catalogue.popularity)
    is_shared = processes().are_several

    def pack_batch(part: tuple[np.ndarray, ...]) -> TorchBatch:
        return TorchBatch.pack(store, *part, device)

    def batches_of(epoch: int) -> list[Any]:
        batches = training_batches(store, config, epoch)
        return [share_sequences(batch) for batch in batches] if is_shared else batches

    trainer = new_trainer(
        {"model": model},
        SharedPretrainLoss(loss, pack_batch) if is_shared else lambda part: loss(pack_batch(part)),
        config.optim,
        total_steps=len(training_batches(store, config, 0)) * config.optim.epochs,
        work=work,
        log=out / "log.jsonl",
        label=f"pretrain {config.encoder.encoder}",
        progress=progress,
        parts=whole_step,
        seed=config.seed,
    )

    def measure() -> tuple[Tensor, float]:
        with whole_item_table(model):
            return last_item_ranks(model, store, config)

    def after_epoch(epoch: int) -> bool:
        if not config.patience:
            return False
        ranks, perplexity = measure()
        metrics = ranking_metrics(ranks)
        trainer.records.append({"epoch": epoch, "step": trainer.step, "perplexity": perplexity, **metrics})
        best = trainer.extra.get("best", -math.inf)
        if metrics["recall@10"] > best:
            trainer.extra.update(best=metrics["recall@10"], stale=0)
        else:
            trainer.extra["stale"] = trainer.extra.get("stale", 0) + 1
        return trainer.extra["stale"] >= config.patience

    if config.train:
        trainer.run(batches_of, after_epoch)
    with whole_item_table(model):
        ranks, perplexity = last_item_ranks(model, store, config)
        weights = unshared(model)
    if not processes().is_first:
        return trainer.seconds
    metrics: dict[str, Any] = {**ranking_metrics(ranks), "perplexity": perplexity, "users": len(ranks)}
    metrics["steps"] = trainer.step
    metrics["encoder_parameters"] = sum(parameter.numel() for parameter in model.encoder.parameters())
    trainer.write_log()
    save_file({name: t.contiguous() for name, t in weights.items()}, out / "model.safetensors")
    write_json(out / "metrics.json", metrics)
    write_json(out / "encoder.json", to_dict(config.encoder))
    return trainer.seconds


def unshared(model: UserEncoder) -> dict[str, Tensor]:
    """The state dict without second names for tied weights, which safetensors refuses."""
    seen: dict[int, str] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen[tensor.data_ptr()] = name
        state[name] = tensor.detach().cpu()
    return state
