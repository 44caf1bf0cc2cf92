"""`python -m tests.architectures`: walk all architectures and write the table of docs/methods.md."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
import transformers
from transformers.utils import logging

from tests.architectures.walk import Verdict, architectures, read_table, table, walk

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
VERSION = f"(transformers {transformers.__version__})"
BEGIN, END = "<!-- table: python -m tests.architectures -->", "<!-- end of table -->"


def main(names: list[str]) -> None:
    """Walk `names`, or all and write the table."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    verdicts = [walk(name) for name in names or architectures()]
    if names:
        print(table(verdicts))
        return
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n{VERSION}\n\n{table(verdicts)}\n{END}{after}", encoding="utf-8")


def documented() -> dict[str, Verdict]:
    """The verdicts in docs/methods.md, none where they are of another version of transformers."""
    version, _, rows = DOCS.read_text(encoding="utf-8").partition(BEGIN + "\n")[2].partition(END)[0].partition("\n\n")
    return read_table(rows.strip()) if version == VERSION else {}


if __name__ == "__main__":
    main(sys.argv[1:])
