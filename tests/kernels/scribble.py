"""Calls operators while another thread overwrites their offsets, ids and targets.

`python -m tests.kernels.scribble SECONDS` calls every native operator that takes integers, forward and backward, for
SECONDS each, and prints its name first, so that whoever started the process knows where it died. What a call returns
or raises does not matter, only that the process lives.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .cases import case, offsets_of

LENGTHS = (40, 0, 200, 7, 90, 1) * 4
BAD = (2**40, -(2**40), 2**62, 10**5)


def overwrite(integers: list[Tensor], is_done: threading.Event) -> None:
    """Puts bad values into the tensors and takes them out again, until `is_done`."""
    arrays = [x.numpy() for x in integers]  # writing through NumPy leaves torch's version counters as they are
    good = [x.copy() for x in arrays]
    while not is_done.is_set():
        for bad in BAD:
            for array, values in zip(arrays, good, strict=True):
                array[len(array) // 2 :] = bad
                array[:] = values


def differentiate(outputs: tuple[Tensor, ...]) -> None:
    wanted = [y for y in outputs if y.requires_grad]
    if wanted:
        torch.autograd.backward(wanted, [torch.ones_like(y) for y in wanted])


def calls() -> Iterator[tuple[str, Callable[[], None], list[Tensor]]]:
    """Each operator's name, a call of it, and the integer tensors that the call reads."""
    torch.manual_seed(0)
    for name in (
        "causal_attention", "causal_conv1d", "embedding_bag_mean", "gru", "hstu_attention", "info_nce",
        "linear_cross_entropy", "linear_rank", "rope", "selective_scan", "ssd_scan",
    ):  # fmt: skip
        example = case(name, LENGTHS)
        integers = [x for x in example.arrays.values() if x.dtype == torch.int64]
        offsets = None
        if example.lengths is not None:
            offsets = offsets_of(example.lengths)
            integers.append(offsets)
        arrays = {key: x.requires_grad_() if x.is_floating_point() else x for key, x in example.arrays.items()}

        def call(example=example, offsets=offsets, arrays=arrays) -> None:
            differentiate(example.run(offsets, **arrays))

        yield name, call, integers


def main(seconds: float) -> None:
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-5)
    for name, call, integers in calls():
        print(name, flush=True)
        call()
        is_done = threading.Event()
        thread = threading.Thread(target=overwrite, args=(integers, is_done))
        thread.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                try:
                    call()
                except (ValueError, RuntimeError, IndexError):
                    continue
        finally:
            is_done.set()
            thread.join()
    print("done", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
