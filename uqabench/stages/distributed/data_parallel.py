"""Training by several processes: each step's gradients are averaged, and its loss is that of all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from uqabench.settings.training import OptimConfig
from uqabench.stages.distributed import checkpoint
from uqabench.stages.distributed.processes import processes
from uqabench.stages.training import Trainer

Loss = Callable[[Any], tuple[Tensor, int]]


def mesh_of(device: torch.device) -> DeviceMesh:
    """All processes in a row, on devices of that type."""
    return init_device_mesh(device.type, (dist.get_world_size(),))


class LossModule(nn.Module):
    """A loss as a module, so that what wraps it knows when a forward pass begins and which weights it has."""

    def __init__(self, modules: dict[str, nn.Module], loss_fn: Loss) -> None:
        super().__init__()
        self.trained = nn.ModuleDict(modules)
        self.loss_fn = loss_fn

    def forward(self, part: Any) -> tuple[Tensor, int]:
        return self.loss_fn(part)


@dataclass(frozen=True)
class _Part:
    content: Any
    is_last: bool  # of its step: the gradients that have added up are averaged after it


class DistributedTrainer(Trainer):
    """The same steps as in one process, each shared out."""

    def __init__(
        self,
        modules: dict[str, nn.Module],
        loss_fn: Loss,
        config: OptimConfig,
        *,
        shards: list[nn.Module],
        parts: Callable[[Any], list[tuple[Any, float]]],
        seed: int,
        **options: Any,
    ) -> None:
        self.group, self.root, self.own_parts = processes(), LossModule(modules, loss_fn), parts
        self.is_sharded = bool(shards)
        self.wrapped = _sharded(self.root, shards) if shards else _replicated(self.root)
        torch.manual_seed(seed + 7919 * self.group.rank)  # dropout differs between processes as between tokens
        super().__init__(modules, self._loss, config, parts=self._parts, **options)

    def _groups(self, lr_scale: dict[str, float]) -> list[dict[str, Any]]:
        """Tensors that lie in several processes are updated apart from those that do not: torch mixes them nowhere."""
        groups = []
        for group in super()._groups(lr_scale):
            for kind in (False, True):
                params = [p for p in group["params"] if isinstance(p, DTensor) == kind]
                if params:
                    groups.append({**group, "params": params})
        return groups

    def _parts(self, batch: Any) -> list[tuple[_Part, float]]:
        own = self.own_parts(batch)
        if self.is_sharded:  # a forward pass fetches weights from all processes: all have as many, the last for nothing
            most = torch.tensor(len(own))
            dist.all_reduce(most, dist.ReduceOp.MAX)
            own = own + [(own[0][0], 0.0)] * (int(most) - len(own))
        return [(_Part(content, i == len(own) - 1), weight) for i, (content, weight) in enumerate(own)]

    def _loss(self, part: _Part) -> tuple[Tensor, int]:
        with self._averaging(part.is_last):
            return self.wrapped(part.content)

    def _averaging(self, is_last: bool) -> AbstractContextManager[None]:
        if self.is_sharded:
            self.root.set_requires_gradient_sync(is_last)
        return nullcontext() if is_last or self.is_sharded else self.wrapped.no_sync()

    def _step_loss(self, value: Tensor) -> Tensor:
        """The mean over the processes, whose losses are shares of the step's times their number."""
        dist.all_reduce(value)
        return value / self.group.world

    def _clip(self) -> Tensor:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        apart = [g.to_local() for g in gradients if isinstance(g, DTensor)]  # each process has rows of its own
        whole = [g for g in gradients if not isinstance(g, DTensor)]
        square = nn.utils.get_total_norm(apart).square().to(self.device)
        dist.all_reduce(square)
        norm = (square + nn.utils.get_total_norm(whole).square().to(self.device)).sqrt()
        for gradient in (*apart, *whole):
            gradient.mul_((self.config.clip / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def order_in_one_process(self) -> list[nn.Parameter]:
        """The parameters in the order in which one process's optimiser has them."""
        return [p for group in super()._groups({}) for p in group["params"]]

    def _is_save_due(self) -> bool:
        """By the first process's clock: all save at the same step."""
        due = torch.tensor([float(self.group.is_first and self.checkpoints.is_due)])
        dist.all_reduce(due)
        return bool(due)

    def _save(self) -> None:
        self._read_steps()
        with self.checkpoints.standing_still():
            checkpoint.save(self, self.root)

    def _resume(self) -> None:
        checkpoint.resume(self, self.root)


def _replicated(root: LossModule) -> DistributedDataParallel:
    device = next(root.parameters()).device
    apart = [name for name, p in root.named_parameters() if isinstance(p, DTensor)]
    apart += [name for name, _ in root.named_buffers()]  # the catalogue's, equal everywhere
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(root, apart)
    return DistributedDataParallel(
        root,
        device_ids=[device] if device.type == "cuda" else None,
        # An encoder may leave weights unused: HSTU its time bias where the log has no timestamps.
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )


def _sharded(root: LossModule, shards: list[nn.Module]) -> LossModule:
    mesh = mesh_of(next(root.parameters()).device)
    for module in shards:
        fully_shard(module, mesh=mesh)
    return fully_shard(root, mesh=mesh)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state, whose weights may lie in several processes: whole in the first one, empty in the others.

    All processes call it.
    """
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
