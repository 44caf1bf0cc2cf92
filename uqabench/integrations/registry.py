"""Integrations by name: built-in ones, those that packages add, and any `package.module:Class`."""

from __future__ import annotations

import torch
from torch import Tensor

from uqabench.errors import InputError
from uqabench.integrations.base import Integration, IntegrationSettings
from uqabench.registry import Registry, reason

REGISTRY: Registry[type[Integration]] = Registry("integration", "uqabench.integrations")

register = REGISTRY.register


def integration_names() -> tuple[str, ...]:
    """Every name that `find_integration` knows, sorted: built-in, registered, and declared as entry points."""
    return REGISTRY.names()


def find_integration(name: str) -> Integration:
    """The integration called `name`, one of `integration_names()` or "package.module:Class".

    Raises InputError for an unknown name, or a class that cannot be imported or made, or is no `Integration`.
    """
    cls = REGISTRY.find(name)
    try:
        integration = cls()
    except InputError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise InputError(f"The integration {name} cannot be made as {cls.__name__}(): {reason(error)}.") from error
    if not isinstance(integration, Integration):
        raise InputError(
            f"The integration {name} is a {type(integration).__name__}: it must be a uqabench.integrations.Integration."
        )
    return integration


def check_integration(name: str, width: int, settings: IntegrationSettings) -> None:
    """Try an integration on two histories of states of this width, so that a run learns at once whether it works.

    Raises InputError for whatever `find_integration` refuses, and for settings, sizes or shapes that do not fit.
    """
    integration = find_integration(name)
    states, offsets = torch.randn(4, width), torch.tensor([0, 3, 4])
    try:
        n_tokens = integration.n_tokens(settings)
        adapter = integration.build(width, width, 1.0, settings)
        inputs = (states, offsets) if integration.pooling is None else (integration.pooling(states, offsets),)
        tokens = adapter(*inputs)
    except InputError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise InputError(f"The integration {name} fails on states of width {width}: {reason(error)}.") from error
    wanted = (2, n_tokens, width)
    if not isinstance(tokens, Tensor) or tuple(tokens.shape) != wanted:
        got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise InputError(f"The adapter of {name} returned {got}: it must return soft tokens {wanted}.")
