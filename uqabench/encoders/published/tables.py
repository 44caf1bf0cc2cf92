"""The item tower under its published names: tables by published number, and one projection of ten features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from uqabench.data.catalogue import Catalogue
from uqabench.encoders.item_tower import ID_FEATURES, TEXT_FEATURES
from uqabench.encoders.user_encoder import UserEncoder
from uqabench.errors import InputError

SIDE_TABLES = {
    "category": "ebc.bags.cate_id.weight",
    "brand": "ebc.bags.brand_id.weight",
    "shop": "ebc.bags.shop_id.weight",
    "seller": "ebc.bags.seller_id.weight",
}
ITEM_TABLE = "ebc.bags.item_id.weight"
TOKEN_TABLE = "ebc.bags.bpe_tokens.weight"
SCORE_TABLE = "score_head_weight"
LINEARS = {"tower.project": "proj1", "score_head": "proj2"}
NAMES = (
    ITEM_TABLE, *SIDE_TABLES.values(), TOKEN_TABLE, SCORE_TABLE,
    *(f"{theirs}.{part}" for theirs in LINEARS.values() for part in ("weight", "bias")),
)  # fmt: skip
"""Every published name outside the encoder."""


def import_tower(model: UserEncoder, catalogue: Catalogue, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors of tower and score head, by our names, from published ones.

    Raises InputError where the scoring table is not the item table, or a published number is past its table.
    """
    item_table = state[ITEM_TABLE]
    if not torch.equal(item_table, state[SCORE_TABLE]):
        raise InputError(f"'{SCORE_TABLE}' is not the item table '{ITEM_TABLE}': in the published model they are one.")
    ours = {"tower.item_table.weight": _rows(item_table, numbers(catalogue, "item"), ITEM_TABLE)}
    for name in model.tower.id_features:
        table = SIDE_TABLES[name]
        ours[f"tower.side_tables.{name}.weight"] = _rows(state[table], numbers(catalogue, name), table)
    if model.tower.text_features:
        tokens = np.arange(catalogue.token_vocab_size)
        ours["tower.token_table.weight"] = _rows(state[TOKEN_TABLE], tokens, TOKEN_TABLE)
    for name, published in LINEARS.items():
        ours |= {f"{name}.{part}": state[f"{published}.{part}"] for part in ("weight", "bias")}
    weight = ours["tower.project.weight"]
    wide = _full_width(model)
    if weight.shape[1] != wide:
        raise InputError(
            f"'proj1.weight' takes {weight.shape[1]} values and the ten features of its tables have {wide}."
        )
    columns = [np.arange(first, last) for first, last, has in _blocks(model) if has]
    ours["tower.project.weight"] = weight[:, np.concatenate(columns)].contiguous()
    return ours


def export_tower(model: UserEncoder, catalogue: Catalogue) -> dict[str, Tensor]:
    """Published tensors of tower and score head. Rows and columns of what the catalogue lacks are zeros."""
    ours, tower = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, model.tower
    side_dim = _side_dim(model)
    item_table = _spread(ours["tower.item_table.weight"], numbers(catalogue, "item"))
    state = {ITEM_TABLE: item_table}
    for name, table in SIDE_TABLES.items():
        has = name in tower.id_features
        rows = ours[f"tower.side_tables.{name}.weight"] if has else torch.zeros(0, side_dim)
        state[table] = _spread(rows, numbers(catalogue, name) if has else np.zeros(0, np.int64))
    state[TOKEN_TABLE] = ours["tower.token_table.weight"] if tower.text_features else torch.zeros(1, side_dim)
    state[SCORE_TABLE] = item_table.clone()
    for name, published in LINEARS.items():
        state |= {f"{published}.{part}": ours[f"{name}.{part}"] for part in ("weight", "bias")}
    weight = torch.zeros(tower.width, _full_width(model))
    columns = np.concatenate([np.arange(first, last) for first, last, has in _blocks(model) if has])
    weight[:, columns] = ours["tower.project.weight"]
    state["proj1.weight"] = weight
    return {name: state[name].contiguous() for name in NAMES}


def numbers(catalogue: Catalogue, name: str) -> np.ndarray:
    """int64: the published number of each item ("item") or value of an attribute; its index without one."""
    if name in catalogue.source_ids:
        return np.array(catalogue.source_ids[name], np.int64)
    return np.arange(len(catalogue) if name == "item" else len(catalogue.values[name]), dtype=np.int64)


def _blocks(model: UserEncoder) -> Iterator[tuple[int, int, bool]]:
    """(first column, column after the last, whether the catalogue has the feature) of the ten published features."""
    tower, side = model.tower, _side_dim(model)
    first = model.item_weight.shape[1]
    yield 0, first, True
    for has in (*(n in tower.id_features for n in ID_FEATURES), *(n in tower.text_features for n in TEXT_FEATURES)):
        yield first, first + side, has
        first += side


def _full_width(model: UserEncoder) -> int:
    return max(last for _, last, _ in _blocks(model))


def _side_dim(model: UserEncoder) -> int:
    tower = model.tower
    tables = [*tower.side_tables.values(), *([tower.token_table] if tower.text_features else [])]
    return tables[0].embedding_dim if tables else 1


def _rows(table: Tensor, places: np.ndarray, name: str) -> Tensor:
    """The rows of these numbers; zeros for -1."""
    if len(places) and int(places.max()) >= len(table):
        raise InputError(
            f"'{name}' has {len(table):,} rows and the data name {int(places.max()):,}: the weights are of other data."
        )
    rows = table[torch.from_numpy(np.maximum(places, 0))].clone()
    rows[torch.from_numpy(places < 0)] = 0.0
    return rows


def _spread(rows: Tensor, places: np.ndarray) -> Tensor:
    """A table with each row at its number, the mean of those that share one."""
    size = int(places.max(initial=0)) + 1
    known = torch.from_numpy(places >= 0)
    at = torch.from_numpy(places)[known]
    counts = torch.bincount(at, minlength=size).clamp(min=1).unsqueeze(1)
    return torch.zeros(size, rows.shape[1], dtype=rows.dtype).index_add_(0, at, rows[known]) / counts
