"""The rows of the roofline report by name, in the order in which they run."""

from __future__ import annotations

from bench.rows import attention, catalogue, encoders, overhead, start_up
from bench.rows.row import Floor, Measure, Row

_MODULES = (encoders, catalogue, overhead, attention, start_up)
ROWS: dict[str, Row] = {row.name: row for module in _MODULES for row in module.ROWS}

__all__ = ["ROWS", "Floor", "Measure", "Row"]
