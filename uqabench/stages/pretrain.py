"""Stage 1: pre-train a user encoder on next-item prediction (paper §3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from uqabench.artifact import Stage
from uqabench.data.packer import PackedBatch, pack, plan_batches, windows
from uqabench.data.store import InteractionStore
from uqabench.data.ties import shuffled_ties
from uqabench.encoders import UserEncoder
from uqabench.errors import RunError
from uqabench.files import write_json
from uqabench.kernels import info_nce, linear_cross_entropy, linear_rank
from uqabench.settings.reader import key_dict, to_dict
from uqabench.settings.stages import PretrainConfig
from uqabench.stages.distributed import processes
from uqabench.stages.distributed.several import (
    SharedBatch,
    new_trainer,
    pretrain_loss,
    share_item_table,
    whole_item_table,
)
from uqabench.stages.distributed.shares import share_sequences, whole_step
from uqabench.stages.encoder_weights import checkpoint_digest, load_weights, unshared
from uqabench.stages.labels import next_item_labels
from uqabench.stages.packed import TorchBatch
from uqabench.stages.precision import loss_dtype, pretraining_optim
from uqabench.stages.training import fits_in_memory, seed_everything

CUTOFFS = (1, 5, 10, 20, 50, 100)


class PretrainLoss:
    """Next-item loss of a packed batch under one objective.

    dtype: of the queries and of the item table's copy that they meet. Its gradient reaches the float32 table in that
    dtype; the sums of either are float32.
    """

    def __init__(
        self, model: UserEncoder, config: PretrainConfig, popularity: np.ndarray, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model, self.config, self.dtype = model, config, dtype
        share = (popularity + 1.0) / (popularity.sum() + len(popularity))
        self.log_q = torch.from_numpy(np.log(share).astype(np.float32)).to(model.item_weight.device)

    def queries(self, batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """The M queries (M, item_dim) of a batch that `labelled_batch` gave its labels, and their next items (M,)."""
        batch.arrive()
        states = self.model.states(batch.items, batch.offsets, batch.timestamps, batch.plan)
        return self.model.queries(states.index_select(0, batch.labels["label"])), batch.labels["target"]

    def __call__(self, batch: TorchBatch) -> tuple[Tensor, int]:
        """Loss and tokens of a batch that `labelled_batch` gave its labels."""
        queries, targets = self.queries(batch)
        if self.config.objective == "sl":
            weight = self.model.item_weight.to(self.dtype)
            return linear_cross_entropy(queries.to(self.dtype), weight, targets), len(batch.items)
        positives = torch.nn.functional.embedding(targets, self.model.item_weight)
        queries, positives = (normalize(x.float(), dim=-1).to(self.dtype) for x in (queries, positives))
        loss = info_nce(queries, positives, targets, self.log_q[targets], self.config.temperature)
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


class NumberedBatch(NamedTuple):
    """(users, starts, ends) of a batch, and its number, from which alone its random order follows."""

    epoch: int
    index: int
    spans: tuple[np.ndarray, ...]


def numbered(epoch: int, batches: list[tuple[np.ndarray, ...]]) -> list[NumberedBatch]:
    """The batches of an epoch with their numbers."""
    return [NumberedBatch(epoch, index, spans) for index, spans in enumerate(batches)]


def labelled_batch(
    store: InteractionStore, part: NumberedBatch, config: PretrainConfig, rows: np.ndarray | None = None
) -> tuple[PackedBatch, dict[str, np.ndarray]]:
    """One packed batch, ties shuffled where the settings say so, and what it has to predict.

    rows: the places of the sequences to keep, in ascending order; all without it. Their ties are in the same order as
    in the whole batch.
    """
    packed = pack(store, *part.spans)
    if config.ties == "shuffled" and packed.timestamps is not None:
        rng = np.random.Generator(np.random.Philox(key=[config.seed, (part.epoch << 32) + part.index]))
        packed = replace(packed, items=shuffled_ties(packed.items, packed.offsets, packed.timestamps, rng))
    if rows is not None:
        packed = packed.take(rows)
    return packed, next_item_labels(packed.items, packed.offsets)


def batch_maker(
    store: InteractionStore, config: PretrainConfig, model: UserEncoder, device: torch.device
) -> Callable[[NumberedBatch], TorchBatch | SharedBatch]:
    """From a batch's spans to what a step of `model` takes, on the device: of several processes this one's share."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def make(part: NumberedBatch) -> TorchBatch | SharedBatch:
        share = share_sequences(part.spans[2] - part.spans[1]) if processes().are_several else None
        packed, labels = labelled_batch(store, part, config, share.rows if share else None)
        batch = TorchBatch.of(packed, device, model, labels=labels, stream=stream)
        return SharedBatch(batch, share.labels) if share else batch

    return make


def last_item_ranks(model: UserEncoder, store: InteractionStore, config: PretrainConfig) -> tuple[Tensor, float]:
    """Rank (U,) of each held-out user's last item given the N before it, and the perplexity of those items. Held out
    are the validation users, or the evaluation users where nobody validates.

    RunError when the perplexity is not finite: the encoder diverged.
    """
    users = store.users(store.held_out)
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
            batch = TorchBatch.pack(store, users[rows], starts[rows], ends[rows], weight.device, model)
            states = model.states(batch.items, batch.offsets, batch.timestamps, batch.plan)
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
            f"pretrain {config.encoder.encoder}: the perplexity of the {store.held_out} users' last items "
            f"became {perplexity}: lower lr."
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
    """The same metrics for ranking every item by its popularity."""
    users = store.users(store.held_out)
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

    settings, inputs = {**key_dict(config), "device": device}, {"data": store.content_hash}
    if config.checkpoint is not None:
        inputs["checkpoint"] = checkpoint_digest(Path(config.checkpoint))
    return Stage("pretrain", settings, inputs, make, together=True)


def _train(
    store: InteractionStore, out: Path, work: Path, config: PretrainConfig, device: torch.device, progress: bool
) -> float:
    seed_everything(config.seed, device)
    model = UserEncoder.build(config.encoder, store.catalogue)
    if config.checkpoint is not None:
        load_weights(model, Path(config.checkpoint), store)
    model = model.to(device)
    share_item_table(model)
    optim = pretraining_optim(config.optim, device)
    loss = PretrainLoss(model, config, store.catalogue.popularity, loss_dtype(optim))
    trainer = new_trainer(
        {"model": model},
        pretrain_loss(loss),
        optim,
        total_steps=len(training_batches(store, config, 0)) * config.optim.epochs,
        work=work,
        log=out / "log.jsonl",
        label=f"pretrain {config.encoder.encoder}",
        progress=progress,
        load=batch_maker(store, config, model, device),
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
        trainer.run(lambda epoch: numbered(epoch, training_batches(store, config, epoch)), after_epoch)
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
