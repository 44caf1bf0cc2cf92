"""`python -m bench.gpu.hot_checks --out FILE`: the hot path's kernels in bf16 against fp32 plain torch, row by row.

A result's error is the largest over its rows of the error's norm over the norm of what it should be: a maximum over
the whole tensor hides the small early rows of HSTU. Rows that are nearly nothing are compared with the tensor's mean
row. Twice the error that plain torch makes in bf16 is allowed: a row that is a difference of large numbers has no
better one. One line of JSON a check; the last one counts how often a step of the pipeline waited.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.gpu.measure import all_rows
from bench.gpu.pipeline import Pipeline
from bench.row import Setting

BOUND = 1e-2
CHECKED = (
    "hstu_attention d=128, uniform to 512 fwd+bwd",
    "hstu_attention d=256, uniform to 512 fwd+bwd",
    "causal_attention d=128, uniform to 512 fwd+bwd",
    "linear_cross_entropy T=1024, V=994447 fwd+bwd",
    "rms_norm width 512 fwd+bwd",
    "layer_norm width 512 fwd+bwd",
    "selective_scan 1024 channels, state 32, uniform to 512 fwd+bwd",
)


def checks(setting: Setting) -> Iterator[dict[str, Any]]:
    """{"check", "error", "passed"} of each result of each of CHECKED, then of the waits of a step."""
    known = all_rows()
    for name in CHECKED:
        try:
            compared = known[name].make(setting).compared
            errors = {
                which: (relative_rows(ours, exact), relative_rows(plain, exact))
                for which, ours, plain, exact in compared()
            }
        except Exception as error:  # the other checks are worth having
            yield {"check": name, "error": None, "passed": False, "problem": " ".join(str(error).split())[:200]}
            if "illegal" in str(error) or "device-side" in str(error):
                raise
            continue
        for which, (error, plain) in errors.items():
            passed = error <= max(BOUND, 2 * plain)
            yield {"check": f"{name}, {which}", "error": error, "plain": plain, "passed": passed}
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(Setting(setting.device, is_small=True), Path(folder))
        waits = pipeline.waits() if setting.device == "cuda" else 0
        pipeline.step()
        pipeline.batches.close()
    yield {"check": "waits of the host in four pipeline steps", "error": float(waits), "passed": waits == 0}


def relative_rows(found: Tensor, expected: Tensor) -> float:
    """Largest |error| / |row| over rows (the first dimension), in the 2-norm; a scalar is one row."""
    found, expected = (x.detach().double().reshape(len(x) if x.ndim else 1, -1) for x in (found, expected))
    if not bool(found.isfinite().all()):
        return float("inf")
    norms = expected.norm(dim=1)
    error = (found - expected).norm(dim=1) / norms.clamp(min=max(1e-30, 1e-2 * float(norms.mean())))
    return float(error.max()) if len(error) else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.hot_checks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    options = parser.parse_args(arguments)
    with options.out.open("a") as file:
        for line in checks(Setting(options.device, options.small)):
            file.write(json.dumps(line) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
