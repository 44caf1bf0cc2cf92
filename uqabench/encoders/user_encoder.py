"""The user encoder: item tower, sequence encoder and the head that scores items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from uqabench.encoders.item_plan import ItemPlan
from uqabench.encoders.item_tower import ItemTower
from uqabench.encoders.registry import build_encoder
from uqabench.errors import InputError
from uqabench.kernels.time_major import know_order, order_arrays
from uqabench.settings.encoders import UserEncoderConfig

if TYPE_CHECKING:
    from uqabench.data import Catalogue

# Five times the other dimensions' 0.02: the score head's bias, which carries it, need not be as large then.
POPULARITY_STD = 0.1


@dataclass(frozen=True)
class HostPlan:
    """Arrays int64 by name, to be copied to the device with their batch; sizes: the steps' of a recurrent encoder."""

    arrays: dict[str, np.ndarray]
    sizes: list[int] | None


class UserEncoder(nn.Module):
    """Packed item sequences -> one state an item; queries that score the catalogue with the tied item table."""

    def __init__(self, tower: ItemTower, encoder: nn.Module, *, name: str = "") -> None:
        super().__init__()
        self.tower, self.encoder = tower, encoder
        self.name = name or type(encoder).__name__
        self.score_head = nn.Linear(tower.width, tower.item_table.embedding_dim)
        # N(0, 1 / width) rather than N(0, 0.02^2): logits of a useful size at once (cross entropy after 200 steps on a
        # planted log of 2,000 items: 4.1 to 4.3 instead of 4.4 to 4.9 for four encoders of width 128).
        nn.init.normal_(self.score_head.weight, std=tower.width**-0.5)
        nn.init.zeros_(self.score_head.bias)

    @classmethod
    def build(cls, config: UserEncoderConfig, catalogue: Catalogue) -> UserEncoder:
        """Fresh weights from torch's global generator. Raises InputError for whatever is wrong in `config`."""
        encoder = build_encoder(config.encoder, config.preset, **config.overrides)
        tower = ItemTower(
            catalogue, encoder.width, inputs=config.inputs, item_dim=config.item_dim, side_dim=config.side_dim
        )
        model = cls(tower, encoder, name=config.encoder)
        if config.popularity_start:
            model.start_at_popularity(torch.from_numpy(np.array(catalogue.popularity)))
        return model

    @torch.no_grad()
    def start_at_popularity(self, popularity: Tensor) -> None:
        """Set the first item dimension so that scores begin as log popularity (V,), the same for every history.

        Few steps suffice then: after 120 on a year of baskets (8,927 items) SASRec's perplexity is 4,690 instead of
        7,070, of which the popularity alone would take it to 5,900.
        """
        log = torch.log1p(popularity.double())
        spread = log.std(correction=0)
        if spread == 0:
            return
        self.item_weight[:, 0] = ((log - log.mean()) * (POPULARITY_STD / spread)).to(self.item_weight.dtype)
        self.score_head.weight[0] = 0.0
        self.score_head.bias[0] = spread / POPULARITY_STD

    @property
    def causal(self) -> bool:
        """Whether a state depends on its own and earlier items only."""
        return getattr(self.encoder, "causal", False)

    @property
    def width(self) -> int:
        return self.tower.width

    @property
    def item_weight(self) -> Tensor:
        """The item-id table (V, item_dim), by which `queries` are scored: logits = queries @ item_weight.T."""
        return self.tower.item_table.weight

    def plan(self, items: np.ndarray, offsets: np.ndarray) -> HostPlan:
        """What the model needs to know of a batch that the host has packed: items int64 (T,), offsets int64 (B+1,).

        Raises InputError for an item outside the catalogue.
        """
        arrays, sizes = self.tower.plan(items), None
        if getattr(self.encoder, "is_recurrent", False):
            sizes, order = order_arrays(offsets)
            arrays |= {f"order.{name}": array for name, array in order.items()}
        return HostPlan(arrays, sizes)

    def planned(self, plan: HostPlan, tensors: Mapping[str, Tensor], offsets: Tensor) -> ItemPlan:
        """The plan for `states` once its arrays lie on the device as `tensors`, and what `offsets` is known to be."""
        if plan.sizes is not None:
            order = {name: tensors[f"order.{name}"] for name in ("tokens", "positions", "sequences", "ranks")}
            know_order(offsets, plan.sizes, order)
        return self.tower.planned(tensors, plan.arrays)

    def states(
        self, items: Tensor, offsets: Tensor, timestamps: Tensor | None = None, plan: ItemPlan | None = None
    ) -> Tensor:
        """States (T, width) of items int64 (T,) packed by offsets int64 (B+1,); timestamps int64 (T,) in seconds.

        `plan`: what `planned` gave for these items; without it they are read from the device.
        Raises InputError for an item outside the catalogue, or an encoder whose output has another shape.
        """
        states = self.encoder(self.tower(items, plan), offsets, timestamps)
        wanted = (items.shape[0], self.width)
        if not isinstance(states, Tensor) or tuple(states.shape) != wanted:
            got = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
            raise InputError(f"The encoder {self.name} returned {got}: forward must return a tensor {wanted}.")
        return states

    forward = states

    def queries(self, states: Tensor) -> Tensor:
        """Project states (T, width) to the item table's space: (T, item_dim)."""
        return self.score_head(states)
