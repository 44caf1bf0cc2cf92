"""The one place where nodes are built: in order, each once, under the run folder's lock."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from uqabench.artifact import Artifact
from uqabench.errors import RunError, UQABenchError, as_uqabench_error
from uqabench.files import is_disk_full
from uqabench.plan.node import Node, in_order
from uqabench.plan.progress import Progress
from uqabench.stages.distributed import LostProcess, build_together, processes

log = logging.getLogger("uqabench")


@dataclass
class Outcome:
    """What an execution left: artefacts and failures, by the keys of their nodes."""

    made: dict[str, Artifact] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    failed: dict[str, UQABenchError] = field(default_factory=dict)

    def of(self, node: Node) -> Artifact:
        """A node's artefact; raises the error for which there is none."""
        if node.key not in self.made:
            raise self.cause(node)
        return self.made[node.key]

    def cause(self, node: Node) -> UQABenchError:
        """Why a node was not built: its own failure, or that of a node that it needs."""
        found = [self.failed[needed.key] for needed in in_order([node]) if needed.key in self.failed]
        return found[0] if found else RunError(f"{node.name} was not built.")


def execute(
    targets: Iterable[Node],
    run: Path,
    *,
    essential: Iterable[Node] = (),
    early: Iterable[Node] = (),
    progress: bool = True,
    strict: bool = False,
) -> Outcome:
    """Build the targets and all that they need into the folder `run`, which the caller has locked.

    A finished artefact with the same settings and inputs is reused. A node that fails takes with it what depends on it,
    and what nothing else needs any more; everything else is built all the same. Of `essential` nodes, which come first,
    the error is raised; with `strict` of all. `early` nodes come next, if a target needs them.
    """
    essential = list(essential)
    targets = [*targets, *essential]
    fatal = {node.key for node in in_order(essential)}
    order = in_order([*essential, *early, *targets])
    outcome = Outcome()
    with Progress(order, run, enabled=progress and processes().is_first) as bar:
        for node in order:
            if not _is_needed(node, targets, outcome.failed):
                bar.skip(node)
                continue
            bar.start(node)
            try:
                inputs = {role: outcome.made[needed.key] for role, needed in node.inputs.items()}
                artifact, reused = build_together(node.open(inputs), node.path(run))
            except Exception as error:  # an encoder or a language model of a user's own may raise anything
                # A full disk and a lost process fail all that follows, too.
                if strict or node.key in fatal or is_disk_full(error) or isinstance(error, LostProcess):
                    raise
                outcome.failed[node.key] = _kept(error)
                log.error("%s failed: %s", node.name, outcome.failed[node.key])
            else:
                outcome.made[node.key] = artifact
                if reused:
                    outcome.reused.add(node.key)
                log.info("%s: %s%s", node.name, node.facts(artifact), " (reused)" if reused else "")
            bar.done(node)
    return outcome


def _kept(error: Exception) -> UQABenchError:
    """The error as one sentence, without its traceback: that would keep alive all that the node had opened."""
    log.debug("the traceback", exc_info=error)
    found = as_uqabench_error(error)
    found.__cause__ = found.__context__ = None
    return found.with_traceback(None)


def _is_needed(node: Node, targets: list[Node], failed: dict[str, UQABenchError]) -> bool:
    """Whether some target needs the node and can still be built."""
    if not failed:
        return True
    for target in targets:
        needed = {other.key for other in in_order([target])}
        if node.key in needed and not needed & failed.keys():
            return True
    return False
