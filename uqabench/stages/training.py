"""One training loop for every stage: schedule, clipping, checkpoints, logs, progress; resumes bit for bit on CPU."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from uqabench.errors import InputError, RunError
from uqabench.files import write_bytes
from uqabench.settings.training import OptimConfig
from uqabench.stages.checkpoints import CheckpointWriter, finished_shards, random_state, restore_random_state
from uqabench.stages.memory import keep_freed_memory
from uqabench.stages.precision import use_tensor_cores
from uqabench.stages.prefetch import AHEAD, prefetched
from uqabench.stages.tensorboard import write_tensorboard
from uqabench.stages.unread import EVERY, Unread


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch; on CPU also choose deterministic kernels (index_put would add in thread order otherwise)."""
    torch.manual_seed(seed)
    use_tensor_cores(device)
    torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)


@contextmanager
def fits_in_memory(label: str, setting: str, value: int) -> Iterator[None]:
    """Within the block, a GPU whose memory is full is a RunError that names the setting to lower, and its value now."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(f"{label}: the GPU's memory is full: lower {setting}, now {value:,} tokens a batch.") from error


class Trainer:
    """Runs optimiser steps over an epoch's batches.

    `modules` are saved and restored under their names; `loss_fn(batch) → (loss, tokens)` computes one step's loss
    and how many tokens it stands for (for the progress bar only). `parts(batch) → [(part, weight), …]` cuts a step
    that is too large for one forward pass: gradients of the weighted losses add up. `load(batch)` makes ready what
    `parts` and `loss_fn` take, on a GPU in a thread of its own, some batches ahead.

    On a GPU losses and gradient norms stay on the device for some steps (see `Unread`), so that the host, which may be
    ahead of it, waits for nothing.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        loss_fn: Callable[[Any], tuple[Tensor, int]],
        config: OptimConfig,
        *,
        total_steps: int,
        work: Path,
        log: Path,
        label: str,
        progress: bool = True,
        lr_scale: dict[str, float] | None = None,
        parts: Callable[[Any], list[tuple[Any, float]]] = lambda batch: [(batch, 1.0)],
        load: Callable[[Any], Any] = lambda batch: batch,
    ) -> None:
        self.parts, self.load = parts, load
        self.modules, self.loss_fn, self.config = modules, loss_fn, config
        self.total_steps = min(total_steps, config.max_steps) if config.max_steps else total_steps
        self.label, self.progress = label, progress
        self.log_path = log
        groups = self._groups(lr_scale or {})
        self.device = groups[0]["params"][0].device
        # Fused, a step is one pass over the memory of all parameters, and its counters lie on the device.
        fused = True if self.device.type == "cuda" else None
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.is_host_ahead = self.device.type == "cuda"  # of the device, which works on what it was given
        self.checkpoints = CheckpointWriter(
            work / "checkpoint.pt", config.checkpoint_seconds, in_thread=self.is_host_ahead
        )
        self.unread = Unread()
        self.loss = math.nan  # of the last step that was read
        self.step = self.epoch = self.step_in_epoch = 0
        self.seconds = 0.0
        self.records: list[dict[str, Any]] = []
        self.losses: list[float] = []  # of the steps of this epoch
        self.extra: dict[str, Any] = {}
        self._resume()

    def _groups(self, lr_scale: dict[str, float]) -> list[dict[str, Any]]:
        groups = []
        for name, module in self.modules.items():
            trainable = [p for p in module.parameters() if p.requires_grad]
            decayed = [p for p in trainable if p.dim() >= 2]
            plain = [p for p in trainable if p.dim() < 2]
            scale = lr_scale.get(name, 1.0)
            for params, decay in ((decayed, self.config.weight_decay), (plain, 0.0)):
                if params:
                    groups.append({"params": params, "weight_decay": decay, "scale": scale})
        return groups

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then cosine from lr to final_lr · lr."""
        warmup = max(1, int(self.config.warmup * self.total_steps))
        if step < warmup:
            return self.config.lr * (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        share = self.config.final_lr + (1 - self.config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
        return self.config.lr * share

    def run(
        self,
        batches_of: Callable[[int], list[Any]],
        after_epoch: Callable[[int], bool] | None = None,
    ) -> None:
        """Train for `config.epochs` epochs of `batches_of(epoch)`; `after_epoch(epoch)` → True stops early."""
        keep_freed_memory()
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            desc=self.label,
            unit="step",
            disable=not self.progress,
            leave=False,
        )
        try:
            self._train(batches_of, after_epoch, bar)
        finally:
            bar.close()
            self.checkpoints.close(self.seconds)

    def _train(
        self, batches_of: Callable[[int], list[Any]], after_epoch: Callable[[int], bool] | None, bar: tqdm
    ) -> None:
        started, tokens = time.monotonic(), 0
        self.checkpoints.start()
        for epoch in range(self.epoch, self.config.epochs):
            batches = batches_of(epoch)[self.step_in_epoch : self.step_in_epoch + self.total_steps - self.step]
            with closing(prefetched(batches, self.load, AHEAD if self.is_host_ahead else 0)) as loaded:
                for batch in loaded:
                    tokens += self._step(batch)
                    self.step_in_epoch += 1
                    bar.update()
                    if self.step % 10 == 0 or self.step == self.total_steps:
                        rate = tokens / max(1e-9, time.monotonic() - started)
                        bar.set_postfix_str(f"loss {self.loss:.3f}, {rate:,.0f} tokens/s")
                    if self._is_save_due():
                        self.seconds += time.monotonic() - started
                        started, tokens = time.monotonic(), 0
                        self._save()
            self._read_steps()
            mean = sum(self.losses) / max(1, len(self.losses))
            self._record({"epoch": epoch, "step": self.step, "loss": mean})
            self.losses = []
            self.epoch, self.step_in_epoch = epoch + 1, 0
            stop = after_epoch(epoch) if after_epoch else False
            if stop or self.step >= self.total_steps:
                break
        self.seconds += time.monotonic() - started

    def _step(self, batch: Any) -> int:
        """One optimiser step over a loaded batch; the number of its tokens."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step) * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        value, tokens = torch.zeros((), dtype=torch.float64, device=self.device), 0
        for part, weight in self.parts(batch):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                loss, count = self.loss_fn(part)
            (loss * weight).backward()
            value = value + loss.detach().double() * weight
            tokens += count
        norm = self._clip()
        self.unread.add(self.step, self._step_loss(value), norm)
        if not self.is_host_ahead:  # where reading is free, nothing is learnt from a gradient that is no number
            self._read_steps()
        self.optimizer.step()
        self.step += 1
        if self.step % EVERY == 0:
            self._read_steps()
        return tokens

    def _read_steps(self) -> None:
        """Read the steps' losses off the device; RunError for the first that is not finite, or has such a gradient."""
        for step, loss, norm in self.unread.read():
            for name, value, way_out in (("loss", loss, "lr or clip, or turn"), ("gradient", norm, "lr or turn")):
                if not math.isfinite(value):
                    raise RunError(f"{self.label}: the {name} became {value} at step {step}: lower {way_out} bf16 off.")
            self.losses.append(loss)
            self.loss = loss
            if (step + 1) % EVERY == 0:
                self._record({"step": step + 1, "train_loss": loss, "lr": self.learning_rate(step)})

    def _step_loss(self, value: Tensor) -> Tensor:
        """The loss of a step, of which this process computed `value`."""
        return value

    def _clip(self) -> Tensor:
        """Clip the gradient; returns its norm before that."""
        return nn.utils.clip_grad_norm_(self.parameters, self.config.clip)

    def _is_save_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.checkpoints.is_due

    def _record(self, row: dict[str, Any]) -> None:
        self.records.append(row)

    def write_log(self) -> None:
        """Write all records, as JSON lines and for TensorBoard."""
        write_bytes(self.log_path, self.log_lines())
        write_tensorboard(self.log_path.with_name("tensorboard"), self.records)

    def log_lines(self) -> bytes:
        """All records as JSON lines."""
        return "".join(json.dumps(record) + "\n" for record in self.records).encode()

    def _save(self) -> None:
        self._read_steps()
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(self.device),
            "position": [self.step, self.epoch, self.step_in_epoch],
            "seconds": self.seconds,
            "records": json.dumps(self.records),
            "losses": list(self.losses),
            "extra": dict(self.extra),
        }
        self.checkpoints.save(state, self.log_lines())

    def _resume(self) -> None:
        if not self.checkpoints.path.exists():
            if finished_shards(self.checkpoints.path.parent):  # of several processes
                from uqabench.stages.distributed.checkpoint import resume
                from uqabench.stages.distributed.data_parallel import LossModule

                resume(self, LossModule(self.modules, self.loss_fn))
            return
        try:
            self._restore(torch.load(self.checkpoints.path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises a zoo of types for a file that is damaged or of another version
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self.checkpoints.path} is damaged ({reason}): delete it to train from the start."
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["random"], self.device)
        self.step, self.epoch, self.step_in_epoch = state["position"]
        self.seconds, self.records = state["seconds"], json.loads(state["records"])
        self.losses, self.extra = state["losses"], state["extra"]
