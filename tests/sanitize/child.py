"""Replays a recording on the module built in FOLDER: `python -m tests.sanitize.child RECORDING FOLDER`.

The sanitizer that the module was built with ends the process when it finds something.
"""

from __future__ import annotations

import faulthandler
import itertools
import pickle
import sys
from pathlib import Path

from .mutate import fuzz
from .replay import Call, check_call, check_concurrent_calls, size

WRONG_CALLS = 400  # of each kernel

if __name__ == "__main__":
    recording, folder = sys.argv[1:]
    faulthandler.enable()
    sys.path.insert(0, folder)
    import _native

    calls: list[Call] = pickle.loads(Path(recording).read_bytes())
    for call in calls:
        check_call(_native, call)
    check_concurrent_calls(_native, calls)
    by_size = sorted(calls, key=lambda call: (call.function, size(call)))
    for _, group in itertools.groupby(by_size, key=lambda call: call.function):
        for seed, call in zip(range(WRONG_CALLS), itertools.cycle(itertools.islice(group, 6)), strict=False):
            fuzz(_native, call, seed)
    functions = ", ".join(sorted({call.function for call in calls}))
    print(f"clean on {', '.join(_native.instruction_sets())}: {len(calls)} calls of {functions}")
