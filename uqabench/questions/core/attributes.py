"""Which attribute a candidate asks about: the first thing that most families draw."""

from __future__ import annotations

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.rng import below
from uqabench.questions.declaration import ASKED

_TITLE = ASKED.index("title")


@inner
def any_attribute(ctx, state):
    """One of those that the catalogue has; -1 without any."""
    return ctx.asked[below(state, len(ctx.asked))] if len(ctx.asked) > 0 else -1


@inner
def side_attribute(ctx, state):
    """One of those beside the title; -1 without any."""
    return ctx.side[below(state, len(ctx.side))] if len(ctx.side) > 0 else -1


@inner
def title(ctx, state):
    """The title."""
    return _TITLE


@inner
def drawn_later(ctx, state):
    """-1: the generator draws one if it needs one."""
    return -1
