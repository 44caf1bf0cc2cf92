"""What the published files look like: names, columns, and the limits of their ids."""

from __future__ import annotations

import pyarrow as pa

SIDES = {"train": "train", "evaluation": "eval"}
"""Split of a store -> what the published files call it, in the order of their numbers. None is for validation users."""

ITEM = "uni_seq_item_id"
ID_COLUMNS = {
    "category": "uni_seq_cate_id",
    "brand": "uni_seq_brand_id",
    "shop": "uni_seq_shop_id",
    "seller": "uni_seq_seller_id",
}
TOKEN_COLUMNS = {
    "title": "uni_seq_title_bpe_token_ids",
    "category": "uni_seq_cate_bpe_token_ids",
    "shop": "uni_seq_shop_bpe_token_ids",
    "brand": "uni_seq_brand_bpe_token_ids",
    "seller": "uni_seq_seller_bpe_token_ids",
}
"""Attribute of the catalogue -> column, both in the published order."""
FEATURES = (ITEM, *ID_COLUMNS.values(), *TOKEN_COLUMNS.values())
TEXT = "text"

LISTS = pa.list_(pa.list_(pa.int64()))
"""Of every feature column: interactions in time order, and the ids of each."""

MAX_ID = 2**31 - 1
TOKENS = 151_936
"""Rows of the published token table: token ids are below it."""
MAX_ITEMS = 2**20
"""Interactions of one row; a longer one is no history."""
USER_FIELDS = {"user_id": pa.string(), "place": pa.int64()}
QUESTION_FIELDS = {"user": pa.int32(), "cut": pa.int32(), "subtask": pa.string()}
ITEM_FIELDS = {"id": pa.int64(), "item_id": pa.string()}
"""Columns of the sidecars, which hold what the published files have no place for."""


def data_file(stage: str, side: str) -> str:
    """Name of a published file; stage: "pretrain" or "align"."""
    return f"{stage}_data_{side}.arrow"


def sidecar(name: str) -> str:
    """Name of the file beside a published one that holds what that has no column for."""
    return name.removesuffix(".arrow") + ".sidecar.arrow"


ITEM_NAMES = "items.sidecar.arrow"
