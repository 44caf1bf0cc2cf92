"""The result file of bench.gpu: what is known so far, written again after every step."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.envelope import SCHEMA, commit
from bench.gpu.goals import judge, percent
from bench.gpu.steps import Step
from bench.machine import cpu_name
from uqabench.files import write_json


def machine(device: str) -> dict[str, Any]:
    """The card and the versions that its figures belong to; "none" for the card where there is none."""
    import torch

    properties = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "gpu": properties.name if properties else "none",
        "memory_gib": round(properties.total_memory / 2**30, 1) if properties else None,
        "multiprocessors": properties.multi_processor_count if properties else None,
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name: _version(name) for name in ("torch", "triton", "transformers", "flash_attn")},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


class Report:
    """Rows by name, steps in order, kernels, ceilings; `save` writes them with the verdicts."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.machine = path, about
        self.steps: list[Step] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self.kernels: list[dict[str, Any]] = []
        self.ceilings: dict[str, float] = {}

    def add_step(self, step: Step) -> None:
        """Keep a step, tell it, and save."""
        self.steps.append(step)
        print(f"{step.name}: {step.result} ({step.seconds:.0f} s) {step.text}".rstrip(), flush=True)
        self.save()

    def add_lines(self, lines: Iterable[str]) -> tuple[set[str], str | None]:
        """Take in what bench.gpu.measure wrote: the rows it finished, and the one that it began and did not end."""
        ended: set[str] = set()
        begun = None
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off when the process was ended
            if "begin" in line:
                begun = line["begin"]
            elif "end" in line:
                ended.add(line["end"])
                begun = None
            elif "ceilings" in line:
                self.ceilings, begun = line["ceilings"], None
            elif "failed" in line:
                self.fail(line["failed"], line["problem"])
            elif "baseline_of" in line:
                row = self.rows.setdefault(line["baseline_of"], {"name": line["baseline_of"]})
                row.setdefault("baselines", {})[line["name"]] = {k: line[k] for k in ("seconds", "problem")}
            elif "kernel" in line:
                self.kernels.append(line)
            else:
                self.rows[line["name"]] = {**self.rows.get(line["name"], {}), **line}
        return ended, begun

    def fail(self, name: str, problem: str) -> None:
        """Say why a row has no figures; those that it has stay."""
        self.rows.setdefault(name, {"name": name}).setdefault("problem", problem)

    def to_dict(self) -> dict[str, Any]:
        for row in self.rows.values():
            if "unit" in row:
                row["percent"] = percent(row, self.ceilings)
                row["bandwidth"] = self.ceilings.get("memory")
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "commit": commit(),
            "ceilings": self.ceilings,
            "rows": list(self.rows.values()),
            "kernels": self.kernels,
            "steps": [step.to_row() for step in self.steps],
            "goals": [verdict.to_row() for verdict in judge(self.rows, self.ceilings)],
        }

    def save(self) -> None:
        write_json(self.path, self.to_dict())
