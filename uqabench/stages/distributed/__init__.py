"""One run by several processes: who they are, what each does, and how they end.

`torchrun -m uqabench run …` starts them. All go through the same plan in the same order. The first process builds what
is not trained and writes every artefact; pre-training and alignment are computed by all: each takes its share of every
step's sequences or questions, so a step has the same gradient as in one process.
"""

from uqabench.stages.distributed.processes import LostProcess, Processes, joined, processes
from uqabench.stages.distributed.together import build_together

__all__ = ["LostProcess", "Processes", "build_together", "joined", "processes"]
