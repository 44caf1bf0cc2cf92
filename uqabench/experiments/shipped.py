"""The names of the experiments that ship with uqabench, known without reading them."""

from __future__ import annotations

from importlib import resources


def shipped_names() -> list[str]:
    """Their names, in alphabetical order."""
    files = [path.name for path in (resources.files("uqabench") / "configs" / "experiments").iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
