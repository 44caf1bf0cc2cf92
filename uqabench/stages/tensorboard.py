"""Training curves for TensorBoard, written once when training has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uqabench.files import atomic_folder


def write_tensorboard(folder: Path, records: list[dict[str, Any]]) -> None:
    """The records' numbers as scalars in `folder`, by `step` or else `epoch`; nothing without the extra `train`.

    `folder` appears whole or not at all: RunError when the disk is full, InputError when it cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with atomic_folder(folder) as partial, _no_traceback_of_a_write():
        with SummaryWriter(str(partial)) as writer:
            for record in records:
                step = record.get("step", record.get("epoch", 0))
                for name, value in record.items():
                    if name not in ("step", "epoch") and isinstance(value, (int, float)):
                        writer.add_scalar(name, value, step)
            writer.flush()  # raises what the writer's thread met; closing does not


@contextmanager
def _no_traceback_of_a_write() -> Iterator[None]:
    """Within the block, a thread that ends because it cannot write prints nothing: its error is raised elsewhere."""
    hook = threading.excepthook

    def quiet(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.exc_value, OSError):
            hook(args)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = hook
