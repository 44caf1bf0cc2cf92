"""Prompts of a finished method, written for a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from uqabench.errors import InputError, nearest
from uqabench.files import atomic_folder, read_json
from uqabench.plan.executor import execute
from uqabench.plan.folder import claimed
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.plan.plan import plan
from uqabench.settings.reader import from_dict
from uqabench.settings.run import RunConfig
from uqabench.stages.export import export_prompts, rows_of_users


def export_run_prompts(
    run: Path, name: str, out: Path, *, users: tuple[int, ...] = (), wait: bool = False
) -> dict[str, Any]:
    """Write the prompts of method `name` of the finished run in folder `run` into the new folder `out`.

    users: only questions about these (numbers as in predictions.jsonl). InputError for a method that the run does not
    have, that asks no language model or that is not aligned yet, and for a folder that exists.
    """
    if not (run / "config.json").exists():
        raise InputError(f"{run} has no finished run: name the folder that `uqabench run` printed.")
    config = from_dict(RunConfig, read_json(run / "config.json"), "config.json")
    if out.exists():
        raise InputError(f"{out} is there already: name a new folder.")
    with claimed(run, wait=wait), Opened() as opened:
        tools = Tools(opened, False)
        planned = {each.method.name: each for each in plan(config, tools).methods if each.align is not None}
        if name not in planned:
            known = ", ".join(planned)
            raise InputError(f"The run has no prompts of '{name}'{nearest(name, planned)}: choose among {known}.")
        chosen = planned[name]
        if not (chosen.align.path(run) / "manifest.json").exists():
            raise InputError(f"{name} is not aligned in {run}: run it first.")
        outcome = execute([chosen.align], run, progress=False)
        made = {role: outcome.of(node) for role, node in chosen.align.inputs.items()}
        context, prompted = Nodes(tools).asked(chosen.method, made)
        aligned = outcome.of(chosen.align)
        trained = aligned.path / "llm"
        model = os.path.relpath(trained, run) if trained.exists() else config.llm.name
        with atomic_folder(out) as folder:
            rows = rows_of_users(context, users)
            return export_prompts(context, prompted, aligned, chosen.method.config.align, rows, folder, model)
