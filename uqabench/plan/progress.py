"""One bar over all nodes of a plan, with the time that is left, above the bars that stages show of their own."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from uqabench.plan import estimate
from uqabench.plan.node import Node


class Progress:
    """Counts nodes; what is left is the sum of their estimates, corrected by how long finished ones really took."""

    def __init__(self, nodes: list[Node], run: Path, *, enabled: bool) -> None:
        self._left = {node.key: estimate.seconds(node, run)[0] for node in nodes}
        self._expected = self._spent = 0.0
        self._started = time.monotonic()
        self._bar = tqdm(
            total=len(nodes), unit="node", leave=False, disable=not enabled, bar_format="{n_fmt}/{total_fmt} {desc}"
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def start(self, node: Node) -> None:
        """Show what is being built and how long everything will still take."""
        self._started = time.monotonic()
        factor = self._spent / self._expected if self._expected > 5 else 1.0
        left = factor * sum(self._left.values())
        self._bar.set_description_str(f"{node.name}, {readable(left)} left")

    def done(self, node: Node) -> None:
        """Count a node that was built, reused or failed."""
        expected, took = self._left.pop(node.key), time.monotonic() - self._started
        if took > 0.3:  # a reused node says nothing of how long nodes take
            self._expected, self._spent = self._expected + expected, self._spent + took
        self._bar.update()

    def skip(self, node: Node) -> None:
        """Count a node that nothing needs any more."""
        self._left.pop(node.key)
        self._bar.update()


def readable(seconds: float) -> str:
    """A duration in the unit that a reader would choose: "40 s", "12 min", "3.5 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
