"""What a training step costs the host beside the step itself: `python -m bench.host_time`.

Batches are packed, checked and copied by `batch_maker`, and every operator checks its arguments. Both are set against
whole steps (forward, backward, loss over the catalogue, clipping, AdamW) by processor time, for which other work on the
machine does not count. The settings are the preset `paper`'s, the log is a hundredth of the paper's.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.command import check_positive, chosen_names, command
from bench.envelope import check_writable, commit
from bench.machine import cpu_name
from bench.scale_data import prepare_parquet, write_log
from uqabench.data import InteractionStore
from uqabench.encoders import UserEncoder, encoder_names
from uqabench.files import write_json
from uqabench.kernels import checks
from uqabench.settings.encoders import PRESET_NAMES
from uqabench.settings.run import run_config
from uqabench.stages.pretrain import PretrainLoss, batch_maker, numbered, training_batches
from uqabench.stages.training import Trainer, seed_everything

GOAL = 0.03
"""Share of a step that the host may take."""
SEQUENCES, TOKENS = 8, 2_193
"""Of a batch at most, as in the encoders' rows of `bench.roofline`."""
FRACTION = 0.01


@dataclass(frozen=True)
class HostTime:
    """Processor seconds of a step: to make its batch, for the operators' checks, and of all threads for the step."""

    batch: float
    checks: float
    step: float

    @property
    def share(self) -> float:
        """Of the batch and the checks, in the step and its batch together."""
        return (self.batch + self.checks) / (self.batch + self.step)


def measure(store: InteractionStore, encoder: str, preset: str, steps: int, work: Path) -> HostTime:
    """Means of `steps` steps behind a first one; the checks are those of the last, which is profiled and not timed."""
    config = run_config("paper").pretrain
    config = replace(
        config,
        encoder=replace(config.encoder, encoder=encoder, preset=preset),
        batch_size=SEQUENCES,
        token_budget=TOKENS,
    )
    device = torch.device("cpu")
    seed_everything(0, device)
    model = UserEncoder.build(config.encoder, store.catalogue)
    make = batch_maker(store, config, model, device)
    trainer = Trainer(
        {"model": model}, PretrainLoss(model, config, store.catalogue.popularity), config.optim, total_steps=1_000,
        work=work, log=work / "log.jsonl", label="host_time", progress=False, load=make,
    )  # fmt: skip
    batches = iter(numbered(0, training_batches(store, config, 0)))
    trainer._step(make(next(batches)))  # compiled, and warm
    made = stepped = 0.0
    for _ in range(steps):
        begin = time.process_time()
        batch = make(next(batches))
        middle = time.process_time()
        trainer._step(batch)
        made, stepped = made + middle - begin, stepped + time.process_time() - middle
    profiler = cProfile.Profile(time.thread_time)
    batch = make(next(batches))
    profiler.runcall(trainer._step, batch)
    return HostTime(made / steps, _inside(profiler, Path(checks.__file__)), stepped / steps)


def _inside(profiler: cProfile.Profile, file: Path) -> float:
    """Seconds in functions of a file and what they call, entered from other files."""
    found = 0.0
    for (name, _, _), (_, _, _, _, callers) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if Path(name) == file:
            found += sum(seconds for (caller, _, _), (_, _, _, seconds) in callers.items() if Path(caller) != file)
    return found


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where the host takes more than the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.host_time", description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", default="hstu", metavar="NAMES", help="with commas between (default: hstu)")
    parser.add_argument("--preset", choices=PRESET_NAMES, default="published", help="size of the encoders (published)")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="that are timed (default: 8)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file")
    options = parser.parse_args(arguments)
    names = chosen_names(options.encoders, encoder_names(), "--encoders")
    check_positive(steps=options.steps)
    if options.json:
        check_writable(options.json)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "log").mkdir()
        write_log(work / "log", FRACTION)
        prepare_parquet(work)
        store = InteractionStore.open(work / "store")
        for name in names:
            found = measure(store, name, options.preset, options.steps, work)
            print(
                f"{name}: batch {1e3 * found.batch:.2f} ms, checks {1e3 * found.checks:.2f} ms, step "
                f"{1e3 * found.step:.0f} ms: the host takes {100 * found.share:.2f} % (goal: {100 * GOAL:g} %)"
            )
            rows.append({"name": name, **found.__dict__, "share": found.share, "goal": GOAL})
    if options.json:
        about = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "commit": commit(), "preset": options.preset}
        write_json(options.json, {**about, "rows": rows})
    return 1 if any(row["share"] > GOAL for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
