"""The process that measures one group of rows: `python -m bench.gpu.measure --group attention --out part.jsonl`.

Each row is written when it is known, and its name before it begins, so that whoever started this process knows which
row it hung or crashed in.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu.clock import ceilings, seconds_a_call
from bench.gpu.goals import judged_rows
from bench.row import Made, Row, Setting

GROUPS = ("ceilings", "attention", "rows", "recurrent", "catalogue", "encoders", "language", "pipeline")
FIRST = ("uniform to 2048", "uniform to 512", "width", "V=994447")
"""Sizes that a goal judges are measured before the others of their group."""
JUDGED = "goals"
_MOST_KERNELS = 6


def all_rows() -> dict[str, Row]:
    """Every row by name."""
    from bench.gpu import attention, encoders, language, operators, pipeline, recurrent

    modules: tuple[Any, ...] = (attention, operators, recurrent, encoders, language, pipeline)
    return {row.name: row for module in modules for row in module.rows()}


def group_rows(group: str) -> list[Row]:
    """The rows of a group in the order in which they are measured; of "goals", those that goals are judged by."""
    rows = all_rows()
    if group == JUDGED:
        return [rows[name] for name in judged_rows()]
    found = [row for row in rows.values() if row.group == group]
    return sorted(found, key=lambda row: not any(text in row.name for text in FIRST))


def measure_ours(row: Row, setting: Setting, share: float) -> Iterator[dict[str, Any]]:
    """The row's figures; after them its kernels, where a GPU ran them."""
    made = row.make(setting)
    result = row.describe(setting) | {"backend": made.backend}
    if made.check is not None:
        result["error"], problem = _attempt(made.check)
        if problem:
            result["unchecked"] = problem
        else:
            result["agrees"] = result["error"] <= row.bound
    result["seconds"] = seconds_a_call(made.ours, setting.device, share=share)
    result["rate"] = result["work"] / result["seconds"]
    result["configurations"] = _configurations()
    yield result
    if setting.device == "cuda" and row.name in judged_rows():
        yield from _kernels(row, made)


def measure_baselines(row: Row, setting: Setting, share: float) -> Iterator[dict[str, Any]]:
    """One line a baseline: its seconds, or why there are none (out of memory, no such package)."""
    made = row.make(setting)
    for name, calls in made.baselines.items():
        seconds, problem = _attempt(lambda calls=calls: seconds_a_call(calls(), setting.device, share=share))
        yield {"baseline_of": row.name, "name": name, "seconds": seconds, "problem": problem}
        _clear(setting)


def _attempt(call: Callable[[], float]) -> tuple[float | None, str | None]:
    try:
        return call(), None
    except Exception as error:  # a row's other figures are worth having
        if "illegal" in str(error) or "device-side" in str(error):
            raise  # nothing runs after it in this process
        return None, " ".join(str(error).split())[:200] or type(error).__name__


def _kernels(row: Row, made: Made) -> Iterator[dict[str, Any]]:
    """Mean device time of the launches that take most of a call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        made.ours[0]()
        torch.cuda.synchronize()
    events = [e for e in profiler.key_averages() if e.self_device_time_total > 0]
    events.sort(key=lambda e: -e.self_device_time_total)
    for event in events[:_MOST_KERNELS]:
        seconds = event.self_device_time_total / max(1, event.count) / 1e6
        yield {"kernel": event.key[:120], "row": row.name, "seconds": seconds, "launches": event.count}


def _configurations() -> dict[str, str]:
    """Configuration and registers of each tuned kernel that ran since the last asking."""
    from uqabench.kernels import backend

    if backend.unavailable("triton", "cuda") is not None:
        return {}
    from uqabench.kernels import triton_tuning

    found = dict(triton_tuning.ran)
    triton_tuning.ran.clear()
    return found


def _clear(setting: Setting) -> None:
    """Gives a row's memory back. What was there before it is frozen: to search that took 0.2 s a row."""
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()


def run(group: str, setting: Setting, out: Path, *, baselines: bool, share: float, skip: Sequence[str] = ()) -> None:
    """Measure the rows of `group` but those in `skip`, and append their lines to `out`."""
    with out.open("a") as file:

        def write(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        if group == "ceilings":
            write({"begin": "ceilings"})
            write({"ceilings": ceilings(setting.device, setting.is_small)})
            return
        rows = group_rows(group)
        gc.collect()
        gc.freeze()
        for row in rows:
            if row.name in skip:
                continue
            write({"begin": row.name})
            started = time.perf_counter()
            try:
                for line in (measure_baselines if baselines else measure_ours)(row, setting, share):
                    write(line)
            except Exception as error:
                write({"failed": row.name, "problem": " ".join(str(error).split())[:300] or type(error).__name__})
                if "illegal" in str(error) or "device-side" in str(error):
                    raise
            write({"end": row.name, "took": time.perf_counter() - started})
            _clear(setting)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.measure", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--group", choices=(*GROUPS, JUDGED), required=True)
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are appended")
    parser.add_argument("--baselines", action="store_true", help="measure the other ways instead of ours")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    parser.add_argument("--share", type=float, default=0.2, metavar="S", help="seconds of calls a figure (0.2)")
    parser.add_argument("--skip", type=Path, help="file of rows' names, one a line")
    options = parser.parse_args(arguments)
    skip = options.skip.read_text().splitlines() if options.skip else []
    setting = Setting(options.device, options.small)
    run(options.group, setting, options.out, baselines=options.baselines, share=options.share, skip=skip)
    sys.stdout.flush()
    os._exit(0) if setting.device == "cuda" else None  # unloading CUDA takes a second that no row needs
    return 0


if __name__ == "__main__":
    sys.exit(main())
