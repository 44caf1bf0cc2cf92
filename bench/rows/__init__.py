"""The rows of the roofline report by name, in the order in which they run."""

from __future__ import annotations

from bench.rows import attention, catalogue, encoders, overhead
from bench.rows.row import Floor, Measure, Row

ROWS: dict[str, Row] = {row.name: row for row in (*encoders.ROWS, *catalogue.ROWS, *overhead.ROWS, *attention.ROWS)}
LEFT_OUT = {"sparse_adamw": "there is no AdamW operator yet whose cost follows the rows touched"}
"""Names that the report will have, and why it cannot yet."""

__all__ = ["LEFT_OUT", "ROWS", "Floor", "Measure", "Row"]
