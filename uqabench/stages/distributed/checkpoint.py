"""Checkpoints of several processes, from which any number of processes can go on.

Every process writes what lies in it, as safetensors, through torch.distributed.checkpoint; a JSON file that the first
process writes last says that all is there. What was whole can be read in pieces and the other way round.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from uqabench.errors import InputError
from uqabench.files import read_json, write_bytes, write_json
from uqabench.stages.checkpoints import SHARDS, SHARDS_FACTS, finished_shards, random_state, restore_random_state
from uqabench.stages.distributed.processes import LostProcess, is_lost, processes

if TYPE_CHECKING:
    from uqabench.stages.training import Trainer

_MOMENTS = ("exp_avg", "exp_avg_sq")


def save(trainer: Trainer, root: nn.Module) -> None:
    """Write a checkpoint with all processes, then remove older ones."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    group, work = processes(), trainer.checkpoints.path.parent
    folder = work / f"{SHARDS}{trainer.step}"
    named = dict(root.named_parameters())
    state = _weights(named) | _moments(trainer, named)
    state |= _random(trainer)
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    if group.is_first:
        facts = {
            "world": group.world,
            "moments": [name for name, p in named.items() if trainer.optimizer.state.get(p)],
            "position": [trainer.step, trainer.epoch, trainer.step_in_epoch],
            "seconds": trainer.seconds,
            "records": trainer.records,
            "losses": trainer.losses,
            "extra": trainer.extra,
        }
        write_json(folder / SHARDS_FACTS, facts)
        write_bytes(work / "log.jsonl", trainer.log_lines())
        for older in work.glob(f"{SHARDS}*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)
        trainer.checkpoints.path.unlink(missing_ok=True)


def resume(trainer: Trainer, root: nn.Module) -> None:
    """Go on from the newest checkpoint of several processes or of one, in the trainer's working folder; nothing where
    there is none. InputError for one that cannot be read."""
    work = trainer.checkpoints.path.parent
    found = _agreed(finished_shards(work)[-1:] or [path for path in [trainer.checkpoints.path] if path.exists()])
    if found is None:
        return
    try:
        with torch.no_grad():
            _restore_shards(trainer, root, found) if found.is_dir() else _restore_whole(trainer, found)
    except LostProcess:
        raise
    except Exception as error:  # torch and safetensors raise several types for files that are damaged
        if is_lost(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{found} is damaged ({reason}): delete it to train from the start.") from error


def _agreed(found: list[Path]) -> Path | None:
    """What the first process found: a disk that others see may be some seconds behind."""
    path = str(found[0]) if found else ""
    if dist.is_initialized():
        said: list[Any] = [path]
        dist.broadcast_object_list(said, src=0)
        path = said[0]
    return Path(path) if path else None


def _weights(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {f"weight.{name}": parameter.detach() for name, parameter in named.items()}


def _random(trainer: Trainer) -> dict[str, Tensor]:
    """The states of this process's random generators, by names that no other process's have."""
    rank = processes().rank
    return {f"random.{rank}.{name}": value for name, value in random_state(trainer.device).items()}


def _moments(trainer: Trainer, named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    state = trainer.optimizer.state
    found: dict[str, Tensor] = {}
    for name, parameter in named.items():
        if moments := state.get(parameter):
            found |= {f"{kind}.{name}": moments[kind] for kind in _MOMENTS}
            found[f"step.{name}"] = moments["step"].reshape(1)
    return found


def _restore_shards(trainer: Trainer, root: nn.Module, folder: Path) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    facts, group = read_json(folder / SHARDS_FACTS), processes()
    named = dict(root.named_parameters())
    for name in facts["moments"]:
        like = named[name]
        steps = _counter(trainer, like, torch.zeros(()))
        moments = {kind: torch.zeros_like(like, requires_grad=False) for kind in _MOMENTS}
        trainer.optimizer.state[like] = {**moments, "step": steps}
    state = _weights(named) | _moments(trainer, named)
    if facts["world"] == group.world:
        state |= _random(trainer)
    dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not group.are_several)
    if facts["world"] == group.world:
        prefix = f"random.{group.rank}."
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        restore_random_state(found, trainer.device)
    trainer.step, trainer.epoch, trainer.step_in_epoch = facts["position"]
    trainer.seconds, trainer.records = facts["seconds"], facts["records"]
    trainer.losses, trainer.extra = facts["losses"], facts["extra"]


def _restore_whole(trainer: Trainer, path: Path) -> None:
    """From one process's checkpoint, of which every process takes what lies in it."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in trainer.modules.items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            tensor.data.copy_(_like(tensor, saved["modules"][name][key]))
    for index, parameter in enumerate(trainer.order_in_one_process()):
        if moments := saved["optimizer"]["state"].get(index):
            own = {kind: _like(parameter, moments[kind]) for kind in _MOMENTS}
            trainer.optimizer.state[parameter] = {**own, "step": _counter(trainer, parameter, moments["step"])}
    trainer.step, trainer.epoch, trainer.step_in_epoch = saved["position"]
    trainer.seconds, trainer.records = saved["seconds"], json.loads(saved["records"])
    trainer.losses, trainer.extra = saved["losses"], saved["extra"]


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process has whole, on the devices of `tensor` and shared out as that is."""
    value = value.to(tensor.device)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else value


def _counter(trainer: Trainer, parameter: Tensor, steps: Tensor) -> Tensor:
    """A parameter's number of steps where the optimiser keeps it: a fused one on the device."""
    is_fused = any(group.get("fused") for group in trainer.optimizer.param_groups)
    return steps.to(parameter.device if is_fused else "cpu", torch.float32)
