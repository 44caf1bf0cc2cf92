"""The rows of `bench.scale` about data and questions, and the log that all rows begin with."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.stopwatch import Result, Stopwatch
from uqabench.data import InteractionStore, open_source, prepare
from uqabench.data.sources.paper_scale import USERS, PaperScale
from uqabench.data.sources.planted import item_names, user_names

QUESTIONS = 7_192
"""Of each side of the files of the published form."""
_QUESTIONS = 400_000
"""Asked for at the whole size: so many that what is made once for a set counts as little as it does there."""
_RENDERED = 20_000


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


def prepare_parquet(work: Path) -> Result:
    """Seconds from two Parquet files to a store."""
    _fresh(work / "store")
    watch = Stopwatch()
    store = prepare(open_source("tables", path=work / "log", time_unit="s"), work / "store", progress=False)
    rows = int(store.manifest["counts"]["read"]["interactions"])
    return Result.seconds(watch, rows=rows, kept=len(store.items))


def prepare_official(work: Path) -> Result:
    """Seconds from files of the published form, which another process writes from the store first, to a store."""
    _fresh(work / "official-store")
    if not (work / "official").exists():
        asked = str(max(200, round(QUESTIONS * _fraction(work))))
        command = [sys.executable, "-m", "bench.published_files", str(work / "store"), str(work / "official")]
        done = subprocess.run([*command, "--questions", asked], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["The files were not written."])[-1])
    watch = Stopwatch()
    store = prepare(open_source("official", path=work / "official"), work / "official-store", progress=False)
    size = sum(file.stat().st_size for file in (work / "official").iterdir())
    return Result.seconds(watch, kept=len(store.items), bytes=size)


def store_open(work: Path) -> Result:
    """Milliseconds until a store is open: the median of nine times, and the first."""
    walls, cpus, whole = [], [], Stopwatch()
    for _ in range(9):
        watch = Stopwatch()
        InteractionStore.open(work / "store")
        walls.append(1e3 * watch.wall)
        cpus.append(1e3 * watch.cpu)
    more = {"first": round(walls[0], 2)}
    return Result(statistics.median(walls), statistics.median(cpus), whole.wall, whole.cpu, whole.before, more)


def questions_generate(work: Path) -> Result:
    """Questions a second of version v1, all that is made once for the set included."""
    from uqabench.questions.generate import build_context, generate
    from uqabench.settings import QuestionConfig

    store = InteractionStore.open(work / "store")
    generate(store, "train", QuestionConfig(n_questions=20))  # compiled
    config = QuestionConfig(n_questions=max(2_000, round(_QUESTIONS * _fraction(work))))
    watch = Stopwatch()
    build_context(store, config, numba.get_num_threads())
    once = watch.cpu
    watch = Stopwatch()
    questions, report = generate(store, "train", config)
    result = Result.rate(
        len(questions), watch, questions=len(questions), once_cpu_seconds=round(once, 2),
        per_cpu_second_after=round(len(questions) / max(watch.cpu - once, 1e-9)),
        candidates_per_question=round(sum(report.candidates.values()) / len(questions), 2),
        threads=numba.get_num_threads(),
    )  # fmt: skip
    questions.save(work / "questions.arrow")
    return result


def questions_render(work: Path) -> Result:
    """Questions a second as text."""
    from uqabench.questions.questions import QuestionSet
    from uqabench.questions.render import format_question, render

    store, questions = InteractionStore.open(work / "store"), QuestionSet.open(work / "questions.arrow")
    chosen = np.linspace(0, len(questions) - 1, min(_RENDERED, len(questions))).astype(int).tolist()
    format_question(render(questions, chosen[0], store.catalogue))  # templates are read
    watch = Stopwatch()
    for i in chosen:
        format_question(render(questions, i, store.catalogue))
    return Result.rate(len(chosen), watch, questions=len(chosen))


def _fraction(work: Path) -> float:
    """Of the paper's users, how many the store has."""
    return len(InteractionStore.open(work / "store")) / USERS


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
