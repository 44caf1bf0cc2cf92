"""`python -m bench.gpu.tune --out DIR`: every configuration of every tuned kernel timed at production sizes.

The rows that goals are judged by run once each, with every choice measured afresh. The times are printed as they come,
and the winners written as tables, a file a kernel, in the form of `kernels/tuned`: to commit them, copy them there.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bench.gpu.goals import PIPELINE
from bench.gpu.measure import all_rows
from bench.row import Setting
from uqabench.kernels import triton_tuning
from uqabench.kernels.triton_tuning import Timed, write_tables

OPERATORS = (
    "hstu_attention d=256, uniform to 512 fwd+bwd",
    "hstu_attention d=128, uniform to 2048 fwd+bwd",
    "hstu_attention d=256, uniform to 2048 fwd+bwd",
    "causal_attention d=128, uniform to 512 fwd+bwd",
    "linear_cross_entropy T=8192, V=994447 fwd+bwd",
    "hstu training step, uniform to 512",
    "trm++ training step, uniform to 512",
    "mamba2 training step, uniform to 512",
    "mamba4rec training step, uniform to 512",
    "sasrec training step, uniform to 512",
    "linear_rank T=4096, V=994447 fwd",
)
TUNED = (PIPELINE, *OPERATORS)
"""What production runs, the dearest first."""


def tune(setting: Setting, seconds: float) -> Iterator[Timed | str]:
    """The choices that the rows of TUNED make, as they come, and a sentence for each row that made none or failed."""
    rows, ends = all_rows(), time.monotonic() + seconds
    triton_tuning.recorded = []
    try:
        for name in TUNED:
            if time.monotonic() > ends:
                yield f"{name}: left out, the time is over"
                continue
            known = len(triton_tuning.recorded)
            try:
                rows[name].make(setting).ours[0]()
            except Exception as error:  # the other rows are worth having
                yield f"{name}: {' '.join(str(error).split())[:200]}"
                if "illegal" in str(error) or "device-side" in str(error):
                    return
            found = triton_tuning.recorded[known:]
            yield from found
            if not found:
                yield f"{name}: nothing left to choose"
            gc.collect()
            if setting.device == "cuda":
                torch.cuda.empty_cache()
    finally:
        triton_tuning.recorded = None


def described(timed: Timed) -> Iterator[str]:
    """A line for each configuration, the fastest first."""
    best = min(timed.seconds.values())
    yield f"{timed.kernel} {timed.key}, {timed.tokens} tokens"
    for config, seconds in sorted(timed.seconds.items(), key=lambda pair: pair[1]):
        yield f"  {seconds * 1e6:10.1f} us  {seconds / best:5.2f}x  {config}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.tune", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    parser.add_argument("--seconds", type=float, default=330.0, help="no row begins after them (default: 330)")
    options = parser.parse_args(arguments)
    made: list[Timed] = []
    for one in tune(Setting(options.device, options.small), options.seconds):
        if isinstance(one, str):
            print(one, flush=True)
            continue
        made.append(one)
        print("\n".join(described(one)), flush=True)
        write_tables(made, options.out, triton_tuning.card(), datetime.date.today().isoformat())
    print(f"{len(made)} choices in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
