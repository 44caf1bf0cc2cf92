"""The item tower: what an encoder sees of an item, from its id and side information."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        """The catalogue's codes and tokens as buffers; it has them on disk, so no checkpoint repeats them."""
        for attribute in dict.fromkeys(self.id_features + self.text_features):
            self._buffer(f"codes_{attribute}", catalogue.codes[attribute])
        for attribute in self.text_features:
            offsets, ids = catalogue.tokens[attribute]
            self._buffer(f"token_offsets_{attribute}", offsets)
            self._buffer(f"token_ids_{attribute}", ids)

    def _buffer(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.array(values)), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """Map item indices int64 (T,), each in [0, V), to (T, width). Each distinct item is embedded once."""
        unique, inverse = torch.unique(items, return_inverse=True)
        # F.embedding gathers with a backward that sums in a fixed order, so equal seeds give equal bits.
        return F.embedding(inverse, self.embed(unique))

    def embed(self, items: Tensor) -> Tensor:
        """`forward` without looking for repeats: (U,) -> (U, width)."""
        parts = [self.item_table(items)]
        parts += [self._id_part(attribute, items) for attribute in self.id_features]
        parts += [self._text_part(attribute, items) for attribute in self.text_features]
        return self.project(torch.cat(parts, dim=-1))

    def _id_part(self, attribute: str, items: Tensor) -> Tensor:
        codes = getattr(self, f"codes_{attribute}")[items].long()
        rows = self.side_tables[attribute](codes.clamp(min=0))
        return rows * (codes >= 0).unsqueeze(-1).to(rows.dtype)

    def _text_part(self, attribute: str, items: Tensor) -> Tensor:
        codes, inverse = torch.unique(getattr(self, f"codes_{attribute}")[items].long(), return_inverse=True)
        starts = getattr(self, f"token_offsets_{attribute}")
        clamped = codes.clamp(min=0)
        first = starts[clamped]
        lengths = (starts[clamped + 1] - first) * (codes >= 0)  # an item without the attribute has no tokens
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        total = int(offsets[-1])
        slots = torch.arange(total, device=items.device)
        slots = slots + torch.repeat_interleave(first - offsets[:-1], lengths, output_size=total)
        ids = getattr(self, f"token_ids_{attribute}")[slots].long()
        return F.embedding(inverse, embedding_bag_mean(self.token_table.weight, ids, offsets))
