"""One training loop for every stage: schedule, clipping, checkpoints, logs, progress; resumes bit for bit on CPU."""

from __future__ import annotations

import io
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from uqabench.errors import InputError, RunError
from uqabench.files import write_bytes
from uqabench.settings.training import OptimConfig
from uqabench.stages.memory import keep_freed_memory
from uqabench.stages.tensorboard import write_tensorboard


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch; on CPU also choose deterministic kernels (index_put would add in thread order otherwise)."""
    torch.manual_seed(seed)
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
    that is too large for one forward pass: gradients of the weighted losses add up.
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
    ) -> None:
        self.parts = parts
        self.modules, self.loss_fn, self.config = modules, loss_fn, config
        self.total_steps = min(total_steps, config.max_steps) if config.max_steps else total_steps
        self.label, self.progress = label, progress
        self.checkpoint_path, self.log_path = work / "checkpoint.pt", log
        self.optimizer = torch.optim.AdamW(self._groups(lr_scale or {}), lr=config.lr, betas=config.betas)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
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
        started = last_saved = time.monotonic()
        tokens = 0
        for epoch in range(self.epoch, self.config.epochs):
            batches = batches_of(epoch)
            for batch in batches[self.step_in_epoch :]:
                if self.step >= self.total_steps:
                    break
                loss, count = self._step(batch)
                tokens += count
                self.losses.append(loss)
                self.step_in_epoch += 1
                now = time.monotonic()
                bar.update()
                if self.step % 10 == 0 or self.step == self.total_steps:
                    bar.set_postfix_str(f"loss {loss:.3f}, {tokens / (now - started):,.0f} tokens/s")
                if self._is_due(now - last_saved):
                    self.seconds += now - started
                    self._save()
                    started, last_saved, tokens = now, now, 0
            mean = sum(self.losses) / max(1, len(self.losses))
            self._record({"epoch": epoch, "step": self.step, "loss": mean})
            self.losses = []
            self.epoch, self.step_in_epoch = epoch + 1, 0
            stop = after_epoch(epoch) if after_epoch else False
            if stop or self.step >= self.total_steps:
                break
        self.seconds += time.monotonic() - started
        bar.close()

    def _step(self, batch: Any) -> tuple[float, int]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step) * group["scale"]
        device = self.device
        self.optimizer.zero_grad(set_to_none=True)
        value, tokens = 0.0, 0
        for part, weight in self.parts(batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16):
                loss, count = self.loss_fn(part)
            (loss * weight).backward()
            value += float(loss.detach()) * weight
            tokens += count
        value = float(self._step_loss(torch.tensor(value, dtype=torch.float64, device=device)))
        if not math.isfinite(value):
            raise RunError(
                f"{self.label}: the loss became {value} at step {self.step}: lower lr or clip, or turn bf16 off."
            )
        norm = self._clip()
        if not math.isfinite(float(norm)):
            raise RunError(
                f"{self.label}: the gradient became {float(norm)} at step {self.step}: lower lr or turn bf16 off."
            )
        self.optimizer.step()
        self.step += 1
        if self.step % 20 == 0:
            self._record({"step": self.step, "train_loss": value, "lr": self.learning_rate(self.step - 1)})
        return value, tokens

    def _step_loss(self, value: Tensor) -> Tensor:
        """The loss of a step, of which this process computed `value`."""
        return value

    def _clip(self) -> Tensor:
        """Clip the gradient; returns its norm before that."""
        return nn.utils.clip_grad_norm_(self.parameters, self.config.clip)

    def _is_due(self, seconds: float) -> bool:
        """Whether to save, so many seconds after the last checkpoint."""
        return seconds >= self.config.checkpoint_seconds

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
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "position": [self.step, self.epoch, self.step_in_epoch],
            "seconds": self.seconds,
            "records": json.dumps(self.records),
            "losses": self.losses,
            "extra": self.extra,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.checkpoint_path, buffer.getvalue())
        write_bytes(self.checkpoint_path.with_name("log.jsonl"), self.log_lines())
        for of_several in self.checkpoint_path.parent.glob("shards-*"):  # older ones
            shutil.rmtree(of_several, ignore_errors=True)

    def _resume(self) -> None:
        if not self.checkpoint_path.exists():
            if any(self.checkpoint_path.parent.glob("shards-*")):  # of several processes
                from uqabench.stages.distributed.checkpoint import resume
                from uqabench.stages.distributed.data_parallel import LossModule

                resume(self, LossModule(self.modules, self.loss_fn))
            return
        try:
            self._restore(torch.load(self.checkpoint_path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises a zoo of types for a file that is damaged or of another version
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self.checkpoint_path} is damaged ({reason}): delete it to train from the start."
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.step, self.epoch, self.step_in_epoch = state["position"]
        self.seconds, self.records = state["seconds"], json.loads(state["records"])
        self.losses, self.extra = state["losses"], state["extra"]
