"""The rows of the roofline report by name, in the order in which they run: a row itself first, then its details."""

from __future__ import annotations

from itertools import groupby

from bench.row import Row
from bench.rows import attention, catalogue, encoders, overhead, start_up

_MODULES = (encoders, catalogue, overhead, attention, start_up)
ROWS: dict[str, list[Row]] = {
    name: list(rows) for module in _MODULES for name, rows in groupby(module.rows(), key=lambda row: row.group)
}
