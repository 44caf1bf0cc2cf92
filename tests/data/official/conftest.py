"""Published files written by hand: rows as plain lists, with no code of the reader's or the writer's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

COLUMNS = [
    "uni_seq_item_id", "uni_seq_cate_id", "uni_seq_brand_id", "uni_seq_shop_id", "uni_seq_seller_id",
    "uni_seq_title_bpe_token_ids", "uni_seq_cate_bpe_token_ids", "uni_seq_shop_bpe_token_ids",
    "uni_seq_brand_bpe_token_ids", "uni_seq_seller_bpe_token_ids",
]  # fmt: skip
FILES = ["pretrain_data_train", "pretrain_data_eval", "align_data_train", "align_data_eval"]
QUESTIONS = {
    "df": "用户第3次（从1开始计数）浏览的商品，其品牌是什么？",
    "mf": "用户历史行为序列的长度是多少？",
    "ip": "用户下一个可能点击的商品的标题是什么？",
    "ap": "用户下一个可能点击的商品的品牌是什么？",
    "li": "用户最感兴趣的3个品牌是什么？",
    "si": "用户近期最感兴趣的品牌是什么？",
    "it": "用户品牌偏好的转移路径是什么？",
}
OPTIONS = "\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n"


def features(item: int) -> list[list[int]]:
    """The ten lists of an item: a rule of its own gives each id and token."""
    shop = item % 5
    return [
        [item], [item % 3], [item % 4 + 10], [shop], [shop],
        [32 + item % 90, 40 + item % 7], [60 + item % 3], [70 + shop], [80 + item % 4] * (item % 4), [90 + shop, 33],
    ]  # fmt: skip


def message(question: str, answer: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps(turns, ensure_ascii=False)


def write_file(path: Path, rows: list[list[Any]], texts: list[Any] | None = None, batch: int = 3) -> None:
    """rows: for each row ten lists of lists, in the order of COLUMNS."""
    kind = pa.list_(pa.list_(pa.int64()))
    fields = [(name, kind) for name in COLUMNS] + ([("text", pa.string())] if texts is not None else [])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema(fields)) as writer:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            columns = [pa.array([row[c] for row in part], kind) for c in range(len(COLUMNS))]
            if texts is not None:
                columns.append(pa.array(texts[start : start + batch], pa.string()))
            writer.write_batch(pa.record_batch(columns, schema=pa.schema(fields)))


def row_of(items: list[int]) -> list[list[list[int]]]:
    """A row's ten columns for a sequence of items."""
    described = [features(item) for item in items]
    return [[description[c] for description in described] for c in range(len(COLUMNS))]


class PublishedFolder:
    """Sequences by file, and how they are written."""

    def __init__(self, path: Path, users: int = 12, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.path = path
        self.train = [rng.integers(0, 40, rng.integers(3, 30)).tolist() for _ in range(users)]
        self.evaluation = [rng.integers(0, 40, rng.integers(3, 30)).tolist() for _ in range(max(2, users // 4))]
        self.asked = {
            side: [(sequence[: max(2, len(sequence) - 1 - k)], subtask, "ABCD"[(k + i) % 4])
                   for i, sequence in enumerate(sequences) for k, subtask in enumerate(QUESTIONS)]
            for side, sequences in (("train", self.train), ("eval", self.evaluation))
        }  # fmt: skip

    def write(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.path / "pretrain_data_train.arrow", [row_of(s) for s in self.train])
        write_file(self.path / "pretrain_data_eval.arrow", [row_of(s) for s in self.evaluation])
        for side, asked in self.asked.items():
            texts = [message(QUESTIONS[subtask] + OPTIONS, letter) for _, subtask, letter in asked]
            write_file(self.path / f"align_data_{side}.arrow", [row_of(s) for s, _, _ in asked], texts)
        return self.path


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., PublishedFolder]:
    return lambda name="published", **sizes: PublishedFolder(tmp_path / name, **sizes)
