"""`python -m tests.sanitize RECORDING FOLDER address|thread`: replays a recording on the module built in FOLDER.

`make sanitize` runs it on a module built with that sanitizer, which ends the process when it finds something.
"""

from __future__ import annotations

import faulthandler
import pickle
import sys
from pathlib import Path

from .replay import Call, check_call, check_concurrent_calls

if __name__ == "__main__":
    recording, folder, sanitizer = sys.argv[1:]
    faulthandler.enable()
    sys.path.insert(0, folder)
    import _native

    calls: list[Call] = pickle.loads(Path(recording).read_bytes())
    for call in calls:
        check_call(_native, call)
    if sanitizer == "thread":
        check_concurrent_calls(_native, calls)
    functions = ", ".join(sorted({call.function for call in calls}))
    print(f"{sanitizer}: clean, {len(calls)} calls of {functions} on {', '.join(_native.instruction_sets())}")
