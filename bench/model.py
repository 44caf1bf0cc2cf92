"""What a GPU kernel should take, from the work of its launch and what it was compiled to: `python -m bench.model`.

The time is that of the busiest resource. Tensor cores, fp32 pipes, special functions and memory each take work / rate;
how far the first three hide behind one another depends on how many warp groups a multiprocessor holds: with n of them,
busiest + (sum - busiest) / n. The last wave of blocks leaves multiprocessors idle (wave quantisation), and a launch
costs a few microseconds. Not modelled: the rates of the L2 cache and of shared memory, latency within a block, bank
conflicts, clocks that fall under load.

Rates: H100 SXM data sheet (https://www.nvidia.com/en-us/data-center/h100/: bf16 989 TFLOP/s dense, fp32 67 TFLOP/s,
3.35 TB/s), H200 (https://www.nvidia.com/en-us/data-center/h200/: 4.8 TB/s, the same processor); 132 multiprocessors,
50 MB of L2 and 228 KiB of shared memory each from the Hopper tuning guide
(https://docs.nvidia.com/cuda/hopper-tuning-guide/); 16 special functions a clock and multiprocessor from the CUDA C++
Programming Guide, "Arithmetic Instructions" (https://docs.nvidia.com/cuda/cuda-c-programming-guide/).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.aot import BUDGET, read_budget
from bench.command import command
from bench.compiled import CUDA_CONFIG, Figures, config_name, function_and_arguments, launched_warps
from bench.envelope import SCHEMA, check_writable, commit
from bench.gpu_cases import CudaCase, KernelCase, Work, all_cases, all_cuda_cases
from bench.occupancy import blocks_a_multiprocessor
from uqabench.files import read_json, write_json

RESULTS = BUDGET.parent
ARCH = 90


@dataclass(frozen=True)
class Device:
    """Rates of one card: FLOP/s, special functions/s, bytes/s; of products and copies what large ones reach."""

    name: str
    tensor: float
    vector: float
    special: float
    bandwidth: float
    multiprocessors: int = 132


_CLOCK = 1.755e9
"""Hz under load; at the 1.98 GHz of the data sheet's fp32 figure no large product runs for long."""
_TENSOR, _VECTOR, _SPECIAL = 800e12, 132 * 256 * _CLOCK, 132 * 16 * _CLOCK
"""800 of the 989 TFLOP/s are what a large bf16 product reaches on these cards (power); 256 = 128 fp32 lanes x 2."""
_REACHED = 0.92
"""Share of the data sheet's bandwidth that a large copy reaches."""
DEVICES = (
    Device("H100", _TENSOR, _VECTOR, _SPECIAL, _REACHED * 3.35e12),
    Device("H200", _TENSOR, _VECTOR, _SPECIAL, _REACHED * 4.8e12),
)
_LAUNCH = 3e-6
"""Seconds from one kernel's end to the next one's start when both wait in the stream."""


@dataclass(frozen=True)
class Prediction:
    """What one launch should take on one card.

    seconds: predicted time. binding: "tensor", "vector", "special", "memory" or "launch". blocks: held by a
    multiprocessor. quantisation: share of the multiprocessors' time that the waves fill, 0 to 1. percent: of the
    card's product rate where the operator's definition has matrix products, else of its bandwidth. registers: a
    thread. shared_bytes: a block. useful_flops, bytes: of the launch (see `Work`). measured: seconds a launch of the
    same kernel in the rows that bench.gpu timed, by row.
    """

    kernel: str
    size: str
    config: str
    device: str
    seconds: float
    binding: str
    blocks: int
    quantisation: float
    percent: float
    registers: int
    shared_bytes: int
    useful_flops: float
    bytes: float
    measured: dict[str, float] = field(default_factory=dict)


def predict(figures: Figures, work: Work, warps: int, device: Device) -> Prediction:
    """Predicted time of one launch, compiled to `figures` with `warps` a block. Infinite where no block fits."""
    held = blocks_a_multiprocessor(figures.registers, figures.shared_bytes, warps, figures.arch)
    parts = {
        "tensor": work.tensor_flops / device.tensor,
        "vector": work.vector_flops / device.vector,
        "special": work.special_ops / device.special,
    }
    busiest, groups = max(parts.values()), max(1.0, held * warps / 4)
    compute = busiest + (sum(parts.values()) - busiest) / groups
    memory = work.bytes / device.bandwidth
    slots = max(1, held) * device.multiprocessors
    waves = max(1, work.blocks) / slots
    # Blocks that share a multiprocessor share its pipes: alone, a wave with a block on each of them loses nothing.
    filled = waves / math.ceil(waves) if waves >= 1 else min(1.0, max(1, work.blocks) / device.multiprocessors)
    busy = max(compute, memory) / filled
    seconds = busy + _LAUNCH if held else math.inf
    binding = "memory" if memory >= compute else max(parts, key=parts.__getitem__)
    if busy < _LAUNCH:
        binding = "launch"
    useful = work.useful_flops / device.tensor if work.useful_flops else memory
    return Prediction(
        kernel=figures.kernel,
        size=figures.size,
        config=figures.config,
        device=device.name,
        seconds=seconds,
        binding=binding,
        blocks=held,
        quantisation=filled,
        percent=100 * useful / seconds,
        registers=figures.registers,
        shared_bytes=figures.shared_bytes,
        useful_flops=work.useful_flops,
        bytes=work.bytes,
    )


Recorded = dict[tuple[Any, ...], dict[str, Any]]


def best(case: KernelCase | CudaCase, recorded: Recorded, device: Device) -> Prediction | None:
    """The fastest of the case's configurations as predicted; None where no configuration has recorded figures."""
    if isinstance(case, CudaCase):
        row = recorded.get((case.kernel, case.instance, CUDA_CONFIG, ARCH))
        if row is None:
            return None
        figures = Figures(**row | {"size": case.size, "shared_bytes": case.shared_bytes})
        return predict(figures, case.work, case.warps, device)
    found = []
    for config in case.configs:
        name = config_name(config)
        row = recorded.get((case.kernel, case.size, name, ARCH))
        if row is not None:
            found.append(predict(Figures(**row), case.work(config), launched_warps(name), device))
    return min(found, key=lambda p: p.seconds, default=None)


def measured(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """{(function, device): {operator's row: mean seconds a launch}} from the files of bench.gpu in `folder`."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for path in sorted(folder.glob("*gpu*.json")):
        report = read_json(path)
        device = report["machine"].get("gpu", "")
        for row in report.get("kernels", []):
            kernel = _key(*function_and_arguments(row["kernel"]))
            found.setdefault((kernel, _short(device)), {})[row["row"]] = row["seconds"]
    return found


def _key(function: str, arguments: str) -> str:
    return f"{function}<{arguments}>" if arguments else function


def profiled_name(case: KernelCase | CudaCase) -> str:
    """By which a profiler knows the kernel, as `measured` writes it."""
    if isinstance(case, CudaCase):
        return _key(case.kernel.rpartition(":")[2], case.instance)
    return case.function.fn.__name__


def _short(device: str) -> str:
    return next((d.name for d in DEVICES if d.name in device), device)


def table(predictions: Iterable[Prediction]) -> list[str]:
    """One line a prediction. Measurements are of whatever sizes bench.gpu ran, which the line names."""
    lines = [("kernel", "size", "configuration", "card", "predicted", "bound by", "regs", "shared KiB", "blocks/SM")]
    lines[0] += ("waves", "peak", "measured")
    for p in predictions:
        compiled = (str(p.registers), _kib(p.shared_bytes), str(p.blocks))
        figures = (_us(p.seconds), p.binding, *compiled, f"{p.quantisation:.2f}", f"{p.percent:.0f} %")
        lines.append((p.kernel, p.size, p.config, p.device, *figures, _times(p)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def markdown(predictions: Iterable[Prediction]) -> list[str]:
    """The lines of a Markdown table: the largest size of each kernel on the first card, in bf16 where it has that,
    which is left unsaid."""
    largest: dict[str, Prediction] = {}
    for p in predictions:
        if p.device == DEVICES[0].name:
            largest[p.kernel] = max(largest.get(p.kernel, p), p, key=_largeness)
    lines = ["| kernel | size | registers | shared KiB | predicted, of peak | bound by | measured |"]
    lines.append("|---" * 7 + "|")
    for p in largest.values():
        size = " ".join(word for word in p.size.split() if word not in ("bf16", f"sm_{ARCH}")).rstrip(",")
        figures = (str(p.registers), _kib(p.shared_bytes), f"{p.percent:.0f} %", p.binding, _times(p))
        lines.append(f"| {' | '.join((f'`{p.kernel}`', size, *figures))} |")
    return lines


def _largeness(p: Prediction) -> tuple[bool, float, float, float]:
    return "bf16" in p.size, p.useful_flops, p.bytes, p.seconds


def _times(p: Prediction) -> str:
    return "; ".join(f"{_us(seconds)} ({row})" for row, seconds in p.measured.items()) or "not measured"


def _kib(size: int) -> str:
    return f"{size / 1024:.1f}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 for a file that cannot be read or written."""
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown: the largest size a kernel, on H100")
    parser.add_argument("--aot", type=Path, default=BUDGET, help="figures that bench.aot wrote (default: %(default)s)")
    options = parser.parse_args(arguments)
    recorded, times = read_budget(options.aot), measured(RESULTS)
    predictions, missing = [], []
    triton_cases = (case for case in all_cases() if ARCH in case.archs)
    for case in itertools.chain(triton_cases, all_cuda_cases()):
        found = [best(case, recorded, device) for device in DEVICES]
        name = profiled_name(case)
        predictions += [replace(p, measured=times.get((name, p.device), {})) for p in found if p is not None]
        missing += [] if found[0] else [f"{case.kernel} [{case.size}]"]
    print("\n".join((markdown if options.markdown else table)(predictions)))
    for name in missing:
        print(f"{name}: not compiled yet; `python -m bench.aot --record` does it.", file=sys.stderr)
    if options.json is not None:
        check_writable(options.json)
        rows = [asdict(p) for p in predictions]
        machine = {device.name: asdict(device) for device in DEVICES}
        write_json(options.json, {"schema": SCHEMA, "machine": machine, "commit": commit(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
