"""How the data path bears the paper's size: `python -m bench.scale --fraction 0.1 --json FILE`.

Each row runs in a process of its own, whose peak of resident memory is the row's. The log is synthetic, of the
fraction of the paper's users, items and interactions that is asked for; goals are those for the whole, on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.machine import cpu_name
from uqabench.data import InteractionStore, Loader, open_source, prepare, windows
from uqabench.data.sources.paper_scale import PaperScale
from uqabench.data.sources.planted import item_names, user_names

Result = tuple[float, float, dict[str, Any]]
"""A row's value, the same by the processor time of this process (what a machine that nobody shares would come near to),
and what else is worth keeping."""

QUESTIONS = 7_192
"""Of each side of the files of the published form."""
_QUESTIONS = 400_000
"""Asked for at the whole size: so many that what is made once for a set counts as little as it does there."""
_RENDERED = 20_000
_LOADED_SECONDS = 20.0


class Stopwatch:
    """Seconds since it was made: of the wall clock, and of the processor in this process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu


def write_log(folder: Path, fraction: float) -> None:
    """interactions.parquet (user, item, time) and items.parquet of the synthetic log, chunk by chunk."""
    log = PaperScale(fraction)
    pq.write_table(pa.table({"item": item_names(log.config.items), **log.attributes()}), folder / "items.parquet")
    schema = pa.schema({"user": pa.string(), "item": pa.string(), "time": pa.int64()})
    items = item_names(log.config.items)
    with pq.ParquetWriter(folder / "interactions.parquet", schema) as writer:
        for chunk in log.chunks(2):
            first = int(chunk.users[0])
            users = user_names(first, int(chunk.users[-1]) - first + 1)
            columns = {"user": users.take(pa.array(chunk.users - first)), "item": items.take(pa.array(chunk.items))}
            writer.write_table(pa.table({**columns, "time": chunk.times}, schema=schema))


def prepare_parquet(work: Path, fraction: float) -> Result:
    """Seconds from two Parquet files to a store."""
    _fresh(work / "store")
    watch = Stopwatch()
    store = prepare(open_source("tables", path=work / "log", time_unit="s"), work / "store", progress=False)
    return (
        watch.wall,
        watch.cpu,
        {"rows": int(store.manifest["counts"]["read"]["interactions"]), "kept": len(store.items)},
    )


def prepare_official(work: Path, fraction: float) -> Result:
    """Seconds from files of the published form, which another process writes from the store first, to a store."""
    _fresh(work / "official-store")
    if not (work / "official").exists():
        asked = str(max(200, round(QUESTIONS * fraction)))
        command = [sys.executable, "-m", "bench.published_files", str(work / "store"), str(work / "official")]
        subprocess.run([*command, "--questions", asked], check=True, stdout=subprocess.DEVNULL)
    watch = Stopwatch()
    store = prepare(open_source("official", path=work / "official"), work / "official-store", progress=False)
    more = {"kept": len(store.items), "bytes": sum(file.stat().st_size for file in (work / "official").iterdir())}
    return watch.wall, watch.cpu, more


def store_open(work: Path, fraction: float) -> Result:
    """Milliseconds until a store is open: the median of nine times, and the first."""
    walls, cpus = [], []
    for _ in range(9):
        watch = Stopwatch()
        InteractionStore.open(work / "store")
        walls.append(1e3 * watch.wall)
        cpus.append(1e3 * watch.cpu)
    return statistics.median(walls), statistics.median(cpus), {"first": round(walls[0], 2)}


def pack_loader(work: Path, fraction: float) -> Result:
    """Sequences a second out of the loader, with their items' features."""
    store = InteractionStore.open(work / "store")
    windowed = windows(store, store.users("train"), 512)
    loader = Loader(store, *windowed, token_budget=65_536, seed=0)
    next(loader.batches())  # compiled
    watch, sequences, tokens = Stopwatch(), 0, 0
    for batch in loader.batches():
        sequences += len(batch.packed)
        tokens += len(batch.packed.items)
        if watch.wall > _LOADED_SECONDS:
            break
    more = {"sequences": sequences, "tokens": tokens, "steps": len(loader)}
    return sequences / watch.wall, sequences / watch.cpu, more


def questions_generate(work: Path, fraction: float) -> Result:
    """Questions a second of version v1, all that is made once for the set included."""
    from uqabench.questions.generate import build_context, generate
    from uqabench.settings import QuestionConfig

    store = InteractionStore.open(work / "store")
    generate(store, "train", QuestionConfig(n_questions=20))  # compiled
    config = QuestionConfig(n_questions=max(2_000, round(_QUESTIONS * fraction)))
    watch = Stopwatch()
    build_context(store, config)
    once = watch.cpu
    watch = Stopwatch()
    questions, report = generate(store, "train", config)
    wall, cpu = watch.wall, watch.cpu
    questions.save(work / "questions.arrow")
    tried = sum(report.candidates.values()) / len(questions)
    return (
        len(questions) / wall,
        len(questions) / cpu,
        {
            "questions": len(questions),
            "once_cpu_seconds": round(once, 2),
            "per_cpu_second_after": round(len(questions) / max(cpu - once, 1e-9)),
            "candidates_per_question": round(tried, 2),
        },
    )


def questions_render(work: Path, fraction: float) -> Result:
    """Questions a second as text."""
    from uqabench.questions.questions import QuestionSet
    from uqabench.questions.render import format_question, render

    store, questions = InteractionStore.open(work / "store"), QuestionSet.open(work / "questions.arrow")
    chosen = np.linspace(0, len(questions) - 1, min(_RENDERED, len(questions))).astype(int).tolist()
    format_question(render(questions, chosen[0], store.catalogue))  # templates are read
    watch = Stopwatch()
    for i in chosen:
        format_question(render(questions, i, store.catalogue))
    return len(chosen) / watch.wall, len(chosen) / watch.cpu, {"questions": len(chosen)}


def first_step(work: Path, fraction: float) -> Result:
    """Seconds from the start of the process to the first training step of the published SASRec."""
    from uqabench.settings.run import run_config
    from uqabench.stages.pretrain import pretrain
    from uqabench.stages.training import Trainer

    class Begun(Exception):
        """Raised where the first step would begin."""

    def begin(self: Trainer, batch: Any) -> tuple[float, int]:
        raise Begun

    Trainer._step = begin  # type: ignore[method-assign]
    config = run_config("paper").pretrain
    store = InteractionStore.open(work / "store")
    with tempfile.TemporaryDirectory() as folder:
        try:
            pretrain(store, config, progress=False).build(Path(folder) / "pretrain")
        except Begun:
            wall = time.time() - float(os.environ["BENCH_STARTED"])
            return wall, time.process_time(), {"encoder": config.encoder.encoder}
    raise RuntimeError("training ended without a step")


ROWS: dict[str, tuple[Callable[[Path, float], Result], str, float]] = {
    "prepare_parquet": (prepare_parquet, "s", 120.0),
    "prepare_official": (prepare_official, "s", 600.0),
    "store_open": (store_open, "ms", 50.0),
    "pack_loader": (pack_loader, "sequences/s", 20_000.0),
    "questions_generate": (questions_generate, "questions/s", 50_000.0),
    "questions_render": (questions_render, "questions/s", 20_000.0),
    "first_step": (first_step, "s", 5.0),
}
"""name: (measurement, unit, goal at the whole size: at most in s and ms, at least in others)."""


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _peak() -> int:
    """Bytes: not ru_maxrss, which a process inherits from a larger one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def run_row(name: str, work: Path, fraction: float) -> dict[str, Any]:
    """Measure a row in this process."""
    measure, unit, goal = ROWS[name]
    value, by_cpu, more = measure(work, fraction)
    return {
        "name": name, "value": round(value, 3), "unit": unit, "peak_rss_bytes": _peak(), "goal": goal,
        "value_by_cpu": round(by_cpu, 3), **more,
    }  # fmt: skip


def in_own_process(name: str, work: Path, fraction: float) -> dict[str, Any]:
    """Measure a row in a new process; what failed is a row with the reason."""
    command = [sys.executable, "-m", "bench.scale", "--row", name, "--work", str(work), "--fraction", str(fraction)]
    environment = {**os.environ, "BENCH_STARTED": repr(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"name": name, "failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where a row failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=0.01, help="of the paper's size (default: 0.01)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows go")
    parser.add_argument("--work", type=Path, help="folder of the log and the store, kept (default: a temporary one)")
    parser.add_argument("--rows", default=",".join(ROWS), help="names with commas between (default: all)")
    parser.add_argument("--note", default="", help="a sentence for the file, on what else the machine did")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.row:
        print(json.dumps(run_row(options.row, options.work, options.fraction)))
        return 0
    names = options.rows.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        print(f"--rows: {', '.join(unknown)} is no row: choose from {', '.join(ROWS)}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        rows = _measure(names, work, options.fraction)
    result = {
        "fraction": options.fraction, "cpu": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg(),
        "note": options.note, "rows": rows,
    }  # fmt: skip
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any("failed" in row for row in rows) else 0


def _measure(names: list[str], work: Path, fraction: float) -> list[dict[str, Any]]:
    log = work / "log"
    log.mkdir(parents=True, exist_ok=True)
    if not (log / "interactions.parquet").exists():
        write_log(log, fraction)
    rows = []
    for name in names:
        rows.append(in_own_process(name, work, fraction))
        print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
