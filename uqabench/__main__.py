"""`python -m uqabench` and `torchrun -m uqabench`."""

import os
import sys

# Said before torch is imported: its C++ part would else warn, for every encoder, that it looks for unused weights.
if os.environ.get("WORLD_SIZE", "1") != "1":
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from uqabench.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
