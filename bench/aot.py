"""Compiles every GPU kernel in every committed configuration, without a GPU: `python -m bench.aot`.

The table shows registers, spills and shared memory, and how many blocks of them a multiprocessor holds. A figure that
passes a limit or what bench/results/aot-budget.json has recorded ends the run with exit status 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

from bench.command import chosen_names, command
from bench.compiled import Figures, compile_case, compile_cuda, config_name, cuda_sources, launched_warps, nvcc
from bench.envelope import SCHEMA, check_writable, commit
from bench.occupancy import blocks_a_multiprocessor
from uqabench.errors import InputError
from uqabench.files import read_json, write_bytes

BUDGET = Path(__file__).parent / "results" / "aot-budget.json"
CASES = "bench.gpu_cases"
FEW = 8
"""Compilations that take less time than two processes need to import torch."""
MEASURES = ("registers", "spill_bytes", "shared_bytes")

EXAMPLES = """examples:
  python -m bench.aot --json runs/aot.json                      # all kernels, sm_80 and sm_90
  python -m bench.aot --arch 90 --kernels hstu_attention,rope   # names that begin so
  python -m bench.aot --subset                                  # one configuration a kernel: about a minute
  python -m bench.aot --record                                  # new figures become the budget
"""


@cache
def cases(module: str) -> list[Any]:
    """The kernel cases of a module that has `all_cases()`; workers ask again, because functions do not travel."""
    return list(importlib.import_module(module).all_cases())


def jobs(module: str, archs: Sequence[int], prefixes: Sequence[str], is_subset: bool) -> list[tuple[int, int, int]]:
    """(index of the case, of its configuration, architecture); a subset has each kernel's first of both, and the first
    with warps that only copy."""
    found, seen = [], set()
    for i, case in enumerate(cases(module)):
        if prefixes and not case.kernel.startswith(tuple(prefixes)):
            continue
        for j, config in enumerate(case.configs):
            kind = (case.kernel, case.archs, config.kwargs.get("LOADS") == "specialised")
            if not is_subset or kind not in seen:
                found += [(i, j, arch) for arch in archs if arch in case.archs]
            seen.add(kind)
    return found


def _compile(module: str, job: tuple[int, int, int]) -> Figures | str:
    """The figures of a job, or a sentence that says why there are none."""
    index, config_index, arch = job
    case = cases(module)[index]
    config = case.configs[config_index]
    try:
        return compile_case(case, config, arch)
    except Exception as error:  # triton raises many types; the run goes on and tells all
        reason = " ".join(str(error).split())[-300:] or type(error).__name__
        return f"{case.kernel} [{case.size}; {config_name(config)}] on sm_{arch} does not compile: {reason}"


def compile_all(
    module: str, asked: Sequence[tuple[int, int, int]], seconds: float | None, processes: int
) -> Iterator[Figures | str]:
    """Results as they come, from some processes if it is worth it; after `seconds` no further ones are begun."""
    if len(asked) <= FEW or processes == 1:
        yield from (_compile(module, job) for job in asked)
        return
    context = multiprocessing.get_context("spawn")
    begun = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(_compile, module, job) for job in asked]
        left = 0
        for future in as_completed(futures):
            if future.cancelled():
                left += 1
                continue
            yield future.result()
            if seconds is not None and time.monotonic() - begun > seconds:
                for other in futures:
                    other.cancel()
    if left:
        yield f"{left} of {len(futures)} compilations were left out: {seconds:.0f} seconds were over."


def compile_cuda_all(archs: Sequence[int], prefixes: Sequence[str]) -> Iterator[Figures | str]:
    """The kernels of every .cu file; says so where there is no nvcc."""
    sources = [s for s in cuda_sources() if not prefixes or s.stem.startswith(tuple(prefixes))]
    if sources and nvcc() is None:
        print(f"no nvcc: {len(sources)} CUDA C++ files are not compiled")
        return
    for source in sources:
        for arch in archs:
            try:
                yield from compile_cuda(source, arch)
            except subprocess.CalledProcessError as error:
                yield f"{source.name} on sm_{arch} does not compile: {' '.join(error.stderr.split())[:300]}"


def read_budget(path: Path = BUDGET) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Recorded rows by (kernel, size, config, arch)."""
    rows = read_json(path)["rows"] if path.exists() else []
    return {(r["kernel"], r["size"], r["config"], r["arch"]): r for r in rows}


def over_budget(found: Figures, budget: dict[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """One sentence for each figure above the recorded one, or one that nothing is recorded."""
    where = f"{found.kernel} [{found.size}; {found.config}] on sm_{found.arch}"
    row = budget.get(found.key)
    if row is None:
        return [f"{where}: nothing is recorded; `python -m bench.aot --record` does it."]
    return [
        f"{where}: {name} is {getattr(found, name)}, recorded is {row[name]}."
        for name in MEASURES
        if getattr(found, name) > row[name]
    ]


def report(figures: Sequence[Figures]) -> dict[str, Any]:
    """The result file; its machine is the one that compiled."""
    from bench.machine import cpu_name  # imports torch

    return {
        "schema": SCHEMA,
        "machine": {"cpu": cpu_name(), "triton": _triton_version()},
        "commit": commit(),
        "rows": [f.to_row() for f in sorted(figures, key=lambda f: f.key)],
    }


def write_report(path: Path, content: dict[str, Any]) -> None:
    """One row a line: a changed figure is a changed line."""
    head = json.dumps({k: v for k, v in content.items() if k != "rows"}, indent=2)[:-2]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in content["rows"])
    write_bytes(path, f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'.encode())


def _triton_version() -> str:
    import triton

    return triton.__version__


def print_table(figures: Sequence[Figures]) -> None:
    """One line a kernel, size, configuration and architecture."""
    columns = ("kernel", "size", "configuration", "sm", "regs", "spill", "shared KiB", "blocks/SM")
    lines = [columns]
    for f in sorted(figures, key=lambda f: f.key):
        warps = launched_warps(f.config) if "warps=" in f.config else None
        held = "" if warps is None else str(blocks_a_multiprocessor(f.registers, f.shared_bytes, warps, f.arch))
        shared = f"{f.shared_bytes / 1024:.1f}"
        lines.append((f.kernel, f.size, f.config, str(f.arch), str(f.registers), str(f.spill_bytes), shared, held))
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.aot",
        description="Compile the GPU kernels without a GPU and compare what they take with the recorded budget.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", default="80,90", help="architectures with commas between (default: %(default)s)")
    parser.add_argument("--kernels", default="", help="beginnings of kernels' names (default: all)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file")
    parser.add_argument("--subset", action="store_true", help="only the first configuration of each kernel")
    parser.add_argument("--record", action="store_true", help="make the figures the budget of the kernels compiled")
    parser.add_argument("--no-cuda", action="store_true", help="leave the CUDA C++ kernels out")
    parser.add_argument("--seconds", type=float, metavar="S", help="begin no compilation after so many seconds")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="compilations at a time (default: 2)")
    parser.add_argument("--cases", default=CASES, help="module with all_cases() (default: %(default)s)")
    parser.add_argument("--budget", type=Path, default=BUDGET, help="file of recorded figures (default: %(default)s)")
    return parser


def chosen_archs(text: str) -> list[int]:
    """Architectures named in `text`; InputError for one that the project has no limits for."""
    return [int(name) for name in chosen_names(text, ("80", "90"), "--arch")]


def record(path: Path, figures: Sequence[Figures]) -> None:
    """Write `figures` into the budget; kernels that were not compiled keep their rows, if they still have cases."""
    made = {f.kernel for f in figures}
    kept = [Figures(**row) for row in read_budget(path).values() if row["kernel"] not in made]
    write_report(path, report([*kept, *figures]))


def _run_compiled(arguments: Sequence[str]) -> int:
    """The same command in a process that does not interpret."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, "-m", "bench.aot", *arguments], env=environment).returncode


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 when a kernel does not compile or passes a limit or its budget, 2 for wrong arguments."""
    options = build_parser().parse_args(arguments)
    archs = chosen_archs(options.arch)
    if os.environ.get("TRITON_INTERPRET"):  # kernels would be Python functions that nothing can compile
        return _run_compiled(sys.argv[1:] if arguments is None else arguments)
    prefixes = [name.strip() for name in options.kernels.split(",") if name.strip()]
    for path in (options.json, options.budget if options.record else None):
        if path is not None:
            check_writable(path)
    asked = jobs(options.cases, archs, prefixes, options.subset)
    results = list(compile_all(options.cases, asked, options.seconds, options.processes)) if asked else []
    results += [] if options.no_cuda else list(compile_cuda_all(archs, prefixes))
    figures = [r for r in results if isinstance(r, Figures)]
    problems = [r for r in results if isinstance(r, str)]
    if not results:
        raise InputError("No kernel has a case of that name.")
    print_table(figures)
    if options.json is not None:
        write_report(options.json, report(figures))
    if options.record and not problems:
        record(options.budget, figures)
    budget = read_budget(options.budget)
    for found in figures:
        problems += found.problems() + over_budget(found, budget)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"\n{len(figures)} compiled, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
