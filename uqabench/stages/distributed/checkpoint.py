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
from uqabench.stages.distributed.processes import LostProcess, is_lost, processes

if TYPE_CHECKING:
    from uqabench.stages.training import Trainer

_FACTS = "trainer.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def shards_of(work: Path) -> list[Path]:
    """Finished checkpoints of several processes in a working folder, the newest last."""
    found = [folder for folder in work.glob("shards-*") if (folder / _FACTS).is_file()]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def save(trainer: Trainer, root: nn.Module) -> None:
    """Write a checkpoint with all processes, then remove older ones."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    group, work = processes(), trainer.checkpoint_path.parent
    folder = work / f"shards-{trainer.step}"
    named = dict(root.named_parameters())
    state = _weights(named) | _moments(trainer, named)
    state[f"rng.{group.rank}"] = torch.get_rng_state()
    if trainer.device.type == "cuda":
        state[f"cuda_rng.{group.rank}"] = torch.cuda.get_rng_state(trainer.device)
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
        write_json(folder / _FACTS, facts)
        write_bytes(work / "log.jsonl", trainer.log_lines())
        for older in work.glob("shards-*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)
        trainer.checkpoint_path.unlink(missing_ok=True)


def forget(work: Path) -> None:
    """Remove the checkpoints of several processes from a working folder: one process has written a later one."""
    for folder in work.glob("shards-*"):
        shutil.rmtree(folder, ignore_errors=True)


def resume(trainer: Trainer, root: nn.Module) -> None:
    """Go on from the newest checkpoint of several processes or of one, in the trainer's working folder; nothing where
    there is none. InputError for one that cannot be read."""
    work = trainer.checkpoint_path.parent
    found = _agreed(shards_of(work)[-1:] or [path for path in [trainer.checkpoint_path] if path.exists()])
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

    facts, group = read_json(folder / _FACTS), processes()
    named = dict(root.named_parameters())
    for name in facts["moments"]:
        like = named[name]
        steps = torch.zeros(())
        moments = {kind: torch.zeros_like(like, requires_grad=False) for kind in _MOMENTS}
        trainer.optimizer.state[like] = {**moments, "step": steps}
    state = _weights(named) | _moments(trainer, named)
    if facts["world"] == group.world:
        state[f"rng.{group.rank}"] = torch.get_rng_state()
        if trainer.device.type == "cuda":
            state[f"cuda_rng.{group.rank}"] = torch.cuda.get_rng_state(trainer.device)
    dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not group.are_several)
    if facts["world"] == group.world:
        torch.set_rng_state(state[f"rng.{group.rank}"])
        if trainer.device.type == "cuda":
            torch.cuda.set_rng_state(state[f"cuda_rng.{group.rank}"], trainer.device)
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
            trainer.optimizer.state[parameter] = {**own, "step": moments["step"]}
    trainer.step, trainer.epoch, trainer.step_in_epoch = saved["position"]
    trainer.seconds, trainer.records = saved["seconds"], json.loads(saved["records"])
    trainer.losses, trainer.extra = saved["losses"], saved["extra"]


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process has whole, on the devices of `tensor` and shared out as that is."""
    value = value.to(tensor.device)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else value
