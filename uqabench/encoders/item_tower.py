"""The item tower: what an encoder sees of an item, from its id and side information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.item_plan import Bags, ItemPlan, Text, as_item_plan, on_device, plan_items
from uqabench.encoders.layers import EMBEDDING_STD
from uqabench.errors import InputError
from uqabench.kernels import embedding_bag_mean
from uqabench.settings.encoders import INPUTS

if TYPE_CHECKING:
    from uqabench.data import Catalogue

ID_FEATURES = ("category", "brand", "shop", "seller")
TEXT_FEATURES = ("title", "category", "shop", "brand", "seller")


class ItemTower(nn.Module):
    """Items -> (T, width): embedding tables, concatenated and projected (UQABench, section 3.2.1).

    The parts, in the published order: item id (`item_dim`); category, brand, shop and seller ids (`side_dim` each);
    the mean token embedding of title, category, shop, brand and seller (`side_dim` each, one token table for all).
    Parts of attributes that the catalogue lacks are left out, and the concatenation shrinks; where an item lacks an
    attribute, or its text has no tokens, the part is zeros. With everything present and the published sizes,
    128 + 4 * 64 + 5 * 64 = 704 values are projected to `width`.

    `inputs` is the paper's table 3: "full", "without-text" (ids only) or "without-side" (item id only).
    """

    def __init__(
        self,
        catalogue: Catalogue,
        width: int,
        *,
        inputs: str = "full",
        item_dim: int = 128,
        side_dim: int = 64,
    ) -> None:
        super().__init__()
        if inputs not in INPUTS:
            raise InputError(f"The encoder's inputs are '{inputs}': choose one of {', '.join(INPUTS)}.")
        present = catalogue.attributes()
        self.width, self.inputs = width, inputs
        self.id_features = tuple(a for a in ID_FEATURES if a in present and inputs != "without-side")
        self.text_features = tuple(
            a for a in TEXT_FEATURES if a in present and inputs == "full" and catalogue.token_vocab_size
        )
        self.item_table = nn.Embedding(len(catalogue), item_dim)
        self.side_tables = nn.ModuleDict(
            {a: nn.Embedding(len(catalogue.values[a]), side_dim) for a in self.id_features}
        )
        if self.text_features:
            self.token_table = nn.Embedding(catalogue.token_vocab_size, side_dim)
        size = item_dim + side_dim * (len(self.id_features) + len(self.text_features))
        self.project = nn.Linear(size, width)
        for table in (self.item_table, *self.side_tables.values(), *([self.token_table] if self.text_features else [])):
            nn.init.normal_(table.weight, std=EMBEDDING_STD)
        # A Gaussian that keeps the embeddings' scale: with std 0.02, SASRec's positions would drown the items.
        nn.init.normal_(self.project.weight, std=size**-0.5)
        nn.init.zeros_(self.project.bias)
        self._keep_catalogue(catalogue)

    def _keep_catalogue(self, catalogue: Catalogue) -> None:
        """Codes as buffers, texts on the host. No checkpoint repeats them: the catalogue has them on disk."""
        for attribute in self.id_features:
            codes = torch.from_numpy(np.array(catalogue.codes[attribute]))
            self.register_buffer(f"codes_{attribute}", codes, persistent=False)
        self._texts = {name: Text(catalogue.codes[name], *catalogue.tokens[name]) for name in self.text_features}

    def plan(self, items: np.ndarray) -> dict[str, np.ndarray]:
        """What `forward` needs to know of items int64 (T,) that the host has: arrays int64, by name.

        Raises InputError for an item outside [0, V).
        """
        size = self.item_table.num_embeddings
        low, high = (int(items.min()), int(items.max())) if len(items) else (0, 0)
        if low < 0 or high >= size:
            raise InputError(
                f"Item index {low if low < 0 else high} is outside the item table of {size} items: "
                f"prepare the data again, or use the encoder that was trained on this catalogue."
            )
        return plan_items(items, size, self._texts)

    def planned(self, tensors: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> ItemPlan:
        """The plan of `arrays`, which `plan` made and which lie on the table's device as `tensors`."""
        return as_item_plan(tensors, arrays, list(self._texts))

    def forward(self, items: Tensor, plan: ItemPlan | None = None) -> Tensor:
        """Map item indices int64 (T,), each in [0, V), to (T, width). Each distinct item is embedded once.

        Without the `plan` of these items they are read from the device.
        """
        if plan is None:
            arrays = self.plan(items.numpy(force=True))
            plan = self.planned(on_device(arrays, items.device), arrays)
        # F.embedding gathers with a backward that sums in a fixed order, so equal seeds give equal bits.
        return F.embedding(plan.places, self.embed(plan.distinct, plan.bags))

    def embed(self, items: Tensor, bags: Mapping[str, Bags]) -> Tensor:
        """Map distinct items (U,), with the bags of their texts, to (U, width)."""
        parts = [self.item_table(items)]
        parts += [self._id_part(attribute, items) for attribute in self.id_features]
        parts += [self._text_part(bags[attribute]) for attribute in self.text_features]
        return self.project(torch.cat(parts, dim=-1))

    def _id_part(self, attribute: str, items: Tensor) -> Tensor:
        codes = getattr(self, f"codes_{attribute}")[items].long()
        rows = self.side_tables[attribute](codes.clamp(min=0))
        return rows * (codes >= 0).unsqueeze(-1).to(rows.dtype)

    def _text_part(self, bags: Bags) -> Tensor:
        return F.embedding(bags.of_item, embedding_bag_mean(self.token_table.weight, bags.ids, bags.offsets))
