"""Encoder weights in the published form, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uqabench.data import InteractionStore
from uqabench.settings.reader import parse_override
from uqabench.stages.encoder_weights import export_checkpoint, import_checkpoint


def import_weights(file: Path, data: Path, out: Path, overrides: tuple[str, ...] = ()) -> str:
    """Bring published weights into folder `out`; returns what was found and how a run begins with it."""
    changed: dict[str, Any] = {}
    for text in overrides:
        changed |= parse_override(text)
    config = import_checkpoint(file, InteractionStore.open(data), out, changed)
    settings = {"pretrain.checkpoint": str(out), "pretrain.encoder.preset": config.preset}
    settings |= {f"pretrain.encoder.overrides.{name}": value for name, value in config.overrides.items()}
    settings |= {f"pretrain.encoder.{name}": getattr(config, name) for name in ("item_dim", "side_dim")}
    lines = [
        f"weights of {config.encoder}, written to {out}; a run begins with them by",
        f"  --methods {config.encoder}",
    ]
    return " \\\n  ".join(["\n".join(lines), *(f"--set {name}={value}" for name, value in settings.items())])


def export_weights(folder: Path, data: Path, file: Path) -> str:
    """Write the weights of a folder under their published names; returns a line about it."""
    return f"{export_checkpoint(folder, InteractionStore.open(data), file)} tensors written to {file}"
