"""`python -m uqabench` and `torchrun -m uqabench`."""

import sys

from uqabench.cli import main

if __name__ == "__main__":
    sys.exit(main())
