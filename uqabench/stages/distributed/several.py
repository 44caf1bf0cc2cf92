"""What a stage calls however many processes there are; for one, each is the plain thing.

torch's distributed parts take most of a second to import: they are imported where there are several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from uqabench.encoders import UserEncoder
from uqabench.settings.training import OptimConfig
from uqabench.stages.distributed.processes import processes
from uqabench.stages.packed import TorchBatch
from uqabench.stages.training import Trainer

if TYPE_CHECKING:
    from uqabench.stages.pretrain import PretrainLoss

Loss = Callable[[Any], tuple[Tensor, int]]


@dataclass(frozen=True)
class SharedBatch:
    """This process's sequences of a step on its device, and `Share.labels`."""

    batch: TorchBatch
    labels: list[int]


def new_trainer(
    modules: dict[str, nn.Module],
    loss_fn: Loss,
    config: OptimConfig,
    *,
    seed: int,
    shards: Iterable[nn.Module] = (),
    **options: Any,
) -> Trainer:
    """A `Trainer`, or with several processes one that trains with the others.

    seed: of what differs between processes, which is dropout. shards: modules, used as a whole in a forward pass,
    whose weights and moments no process holds alone (FSDP), with all other weights; none: every process has all
    weights. With several processes `options["parts"]` gives this process's share of a step, and a part's weight is its
    share of the step times the number of processes.
    """
    if not processes().are_several:
        return Trainer(modules, loss_fn, config, **options)
    from uqabench.stages.distributed.data_parallel import DistributedTrainer

    return DistributedTrainer(modules, loss_fn, config, seed=seed, shards=list(shards), **options)


def pretrain_loss(loss: PretrainLoss) -> Loss:
    """`loss` of a loaded batch, or of this process's `SharedBatch`: the shares of all add up to the step's loss."""
    if not processes().are_several:
        return loss
    from uqabench.stages.distributed.pretrain_loss import SharedPretrainLoss

    return SharedPretrainLoss(loss)


def share_item_table(model: UserEncoder) -> None:
    """Replace the model's item table, equal in all processes, by one of which each holds some rows."""
    if processes().are_several:
        from uqabench.stages.distributed.catalogue import SharedTable
        from uqabench.stages.distributed.data_parallel import mesh_of

        model.tower.item_table = SharedTable(model.tower.item_table, mesh_of(model.item_weight.device))


@contextmanager
def whole_item_table(model: UserEncoder) -> Iterator[None]:
    """Within the block the model has its whole item table in every process, and needs no other one."""
    shared = model.tower.item_table
    if isinstance(shared, nn.Embedding):
        yield
        return
    model.tower.item_table = nn.Embedding.from_pretrained(shared.weight.detach().full_tensor(), freeze=False)
    try:
        yield
    finally:
        model.tower.item_table = shared


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state, whose weights may lie in several processes: whole in the first one, empty in the others.

    All processes call it.
    """
    if not processes().are_several:
        return module.state_dict()
    from uqabench.stages.distributed import data_parallel

    return data_parallel.whole_state(module)


def gathered_model(model: nn.Module, fresh: Callable[[], nn.Module]) -> nn.Module:
    """The trained `model` itself where it lies whole; where its weights lie in several processes, which all call it,
    `fresh()` with these weights in the first process."""
    if not processes().are_several:
        return model
    state = whole_state(model)
    if not processes().is_first:
        return model
    whole = fresh()
    whole.load_state_dict(state)
    return whole
