"""Replays a recording on the module built in FOLDER: `python -m tests.sanitize.child RECORDING FOLDER`.

The sanitizer that the module was built with ends the process when it finds something.
"""

from __future__ import annotations

import faulthandler
import pickle
import sys
from pathlib import Path

from .replay import Call, check_call, check_concurrent_calls

if __name__ == "__main__":
    recording, folder = sys.argv[1:]
    faulthandler.enable()
    sys.path.insert(0, folder)
    import _native

    calls: list[Call] = pickle.loads(Path(recording).read_bytes())
    for call in calls:
        check_call(_native, call)
    check_concurrent_calls(_native, calls)
    functions = ", ".join(sorted({call.function for call in calls}))
    print(f"clean on {', '.join(_native.instruction_sets())}: {len(calls)} calls of {functions}")
