"""Which configuration a Triton kernel runs with: the committed winner of this card, else the fastest, measured once.

A choice is made for a kernel, the arguments that its key names, the dtypes of its tensors and the number of tokens to
the next power of two: what wins on 2,000 tokens need not on 65,536. Committed choices are in `tuned`, a file a kernel,
made by `python -m bench.gpu tune`. UQABENCH_TUNING says what happens without one: "measure" (the default) times every
configuration and keeps the times in Triton's cache folder; "first" takes the first, times nothing and keeps nothing.
Where several processes train, one measures and the others wait for its choice (`agreement.py`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import Config
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import KernelInterface

from . import agreement

ENVIRONMENT_VARIABLE = "UQABENCH_TUNING"
MODES = ("measure", "first")
TABLES = Path(__file__).parent / "tuned"


class Timed(NamedTuple):
    """What one choice was made of: seconds of each configuration, infinite where it does not fit the card."""

    kernel: str
    key: tuple[Any, ...]
    tokens: int
    seconds: dict[Config, float]


recorded: list[Timed] | None = None
"""While it is a list, every choice is measured afresh, whatever is committed or kept, and appended."""


ran: dict[str, str] = {}
"""By kernel and size the configuration that was chosen last, and the registers of a thread."""


class Tuned(KernelInterface):
    """A `triton.jit` function whose configuration is chosen at its first call of each key and number of tokens.

    tokens: the argument that counts them, a tensor by its first dimension or an integer; None: the key says it.
    """

    def __init__(self, fn: Any, configs: Sequence[Config], key: Sequence[str], tokens: str | None) -> None:
        self.fn, self.configs, self.key, self.tokens = fn, list(configs), list(key), tokens
        self._of_size: dict[int, _OfSize] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        size = self.size_of(args, kwargs)
        tuner = self._of_size.get(size)
        if tuner is not None:
            return tuner.run(*args, **kwargs)
        tuner = self._of_size[size] = _OfSize(self.fn, self.configs, self.key, size)
        compiled = tuner.run(*args, **kwargs)
        registers = getattr(compiled, "n_regs", None)
        ran[f"{tuner.base_fn.__name__}, {size} tokens"] = f"{tuner.best_config}, registers: {registers}"
        return compiled

    def size_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """The tokens of a call to the next power of two, 0 where the key has them."""
        if self.tokens is None:
            return 0
        value = kwargs[self.tokens] if self.tokens in kwargs else args[self.fn.arg_names.index(self.tokens)]
        return size_class(value.shape[0] if isinstance(value, Tensor) else int(value))


def size_class(tokens: int) -> int:
    """The least power of two that is no less; 1 for none."""
    return 1 << max(0, tokens - 1).bit_length()


class _OfSize(Autotuner):
    """Triton's tuner for calls of one number of tokens."""

    def __init__(self, fn: Any, configs: list[Config], key: list[str], size: int) -> None:
        super().__init__(fn, fn.arg_names, configs, key, None, None)
        self.cache_results = True  # so that `check_disk_cache` is asked
        self.size = size

    def _bench(self, *args: Any, config: Config, **meta: Any) -> list[float]:
        try:
            return super()._bench(*args, config=config, **meta)
        except RuntimeError as error:  # what another version of the compiler cannot make is no choice
            if "PassManager" not in str(error):
                raise
            return [math.inf] * 3

    def check_disk_cache(
        self, tuning_key: tuple[Any, ...], configs: list[Config], bench_fn: Callable[[], None]
    ) -> bool:
        """What the base class asks at the first call of a key; leaves the choice in `self.cache`."""
        name = self.base_fn.__name__
        if recorded is not None:
            bench_fn()
            seconds = {config: _milliseconds(times) / 1e3 for config, times in self.configs_timings.items()}
            recorded.append(Timed(name, tuning_key, self.size, seconds))
            return False
        choice = committed(name, tuning_key, self.size, configs, card())
        if choice is None and tuning_mode() == "first":
            choice = configs[0]
        if choice is not None:
            self.cache[tuning_key] = choice
            return True
        sized, is_kept = (*tuning_key, self.size), True

        def measure() -> str:
            nonlocal is_kept
            is_kept = super(_OfSize, self).check_disk_cache(sized, configs, bench_fn)
            return str(self.cache.pop(sized) if is_kept else self.cache[tuning_key])

        found = agreement.agree(f"{card()}/{name}/{self.size}/{tuning_key}", measure)
        self.cache[tuning_key] = next(config for config in configs if str(config) == found)
        return is_kept


def _milliseconds(times: Any) -> float:
    return float(times[0] if isinstance(times, (list, tuple)) else times)


def tuning_mode() -> str:
    """UQABENCH_TUNING; ValueError for a value that it does not have."""
    mode = os.environ.get(ENVIRONMENT_VARIABLE) or MODES[0]
    if mode not in MODES:
        raise ValueError(f"the environment variable {ENVIRONMENT_VARIABLE} is {mode!r}: choose {' or '.join(MODES)}.")
    return mode


@cache
def card() -> str:
    """The current GPU's name."""
    return torch.cuda.get_device_name()


@cache
def table(kernel: str) -> dict[str, Any]:
    """The committed choices of a kernel; none where it has no file."""
    path = TABLES / f"{kernel}.json"
    return json.loads(path.read_text()) if path.exists() else {"choices": []}


def committed(kernel: str, key: tuple[Any, ...], tokens: int, configs: Sequence[Config], name: str) -> Config | None:
    """The committed winner among `configs` on the card `name`; None where there is none, or it is no longer offered."""
    wanted = [str(part) for part in key]
    for choice in table(kernel)["choices"]:
        if choice["card"] == name and choice["key"] == wanted and choice["tokens"] == tokens:
            return next((config for config in configs if str(config) == choice["config"]), None)
    return None


def write_tables(timed: Sequence[Timed], folder: Path, name: str, date: str) -> list[Path]:
    """Write the winners of `timed` as tables for the card `name`, a file a kernel; other cards' choices stay."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kernel in sorted({one.kernel for one in timed}):
        path = folder / f"{kernel}.json"
        kept = json.loads(path.read_text())["choices"] if path.exists() else []
        made = [_choice(one, name, date) for one in timed if one.kernel == kernel and min(one.seconds.values()) < 1e9]
        places = {(c["card"], tuple(c["key"]), c["tokens"]): c for c in [*kept, *made]}
        path.write_text(json.dumps({"choices": list(places.values())}, indent=1) + "\n")
        paths.append(path)
    return paths


def _choice(timed: Timed, name: str, date: str) -> dict[str, Any]:
    best = min(timed.seconds, key=timed.seconds.__getitem__)
    return {
        "card": name, "date": date, "key": [str(part) for part in timed.key], "tokens": timed.tokens,
        "config": str(best), "seconds": timed.seconds[best],
    }  # fmt: skip
