"""One measurement for all processes where a kernel's configuration is chosen by the clock.

The process that first needs a choice measures it, and the others that need it wait for it: they neither load the
machine meanwhile nor choose another configuration. That is not always the first process, because sizes differ: what it
never needs, the others would wait for inside a step that it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uqabench.kernels import agreement
from uqabench.stages.distributed.processes import Processes

_FAILED = "-"


@contextmanager
def choosing_together(group: Processes) -> Iterator[None]:
    """Within the block the processes of `group` choose kernels' configurations together."""
    alone = agreement.agree

    def agree(place: str, measure: Callable[[], str]) -> str:
        if not group.claim(f"choice of/{place}"):
            found = group.wait(f"choice/{place}")[1]
            return found if found != _FAILED else alone(place, measure)
        try:
            found = alone(place, measure)
        except BaseException:
            group.say(f"choice/{place}", _FAILED)
            raise
        group.say(f"choice/{place}", found)
        return found

    agreement.agree = agree
    try:
        yield
    finally:
        agreement.agree = alone
