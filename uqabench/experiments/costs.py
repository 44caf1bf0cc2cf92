"""The costs of an experiment's cells: their nodes, and what is written of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uqabench.experiments.spec import Experiment
from uqabench.files import write_json
from uqabench.plan.executor import Outcome
from uqabench.plan.node import Node
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.plan import Planned
from uqabench.report.efficiency import efficiency_rows, write_efficiency


def cost_node(experiment: Experiment, planned: Planned, tools: Tools) -> Node | None:
    """The node that measures a cell; None where the experiment measures none or the method asks no language model."""
    if not experiment.costs or planned.align is None:
        return None
    return Nodes(tools).efficiency(planned.method)


def write_costs(
    results: dict[str, Any], costs: Mapping[int, Node], outcome: Outcome, prices: Mapping[str, float], out: Path
) -> None:
    """Write efficiency.json and its tables and plots into the experiment's folder `out`; `costs` by cell."""
    measured = {index: outcome.of(node).json("costs.json") for index, node in costs.items() if node.key in outcome.made}
    failed = {
        results["cells"][index]["label"]: str(outcome.cause(node))
        for index, node in costs.items()
        if node.key not in outcome.made
    }
    rows = efficiency_rows(results, measured, prices)
    write_json(out / "efficiency.json", {"schema": 1, "prices": dict(prices), "rows": rows, "failed": failed})
    write_efficiency(rows, out)
