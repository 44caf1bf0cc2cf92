"""The rows of the roofline report by name, in the order in which they run."""

from __future__ import annotations

from bench.rows import attention, catalogue, encoders, overhead
from bench.rows.row import Floor, Measure, Row

ROWS: dict[str, Row] = {row.name: row for row in (*encoders.ROWS, *catalogue.ROWS, *overhead.ROWS, *attention.ROWS)}

__all__ = ["ROWS", "Floor", "Measure", "Row"]
