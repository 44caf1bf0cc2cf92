"""Values for rows and benchmarks, the same on every run."""

from __future__ import annotations

import torch


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Normal fp32 values of standard deviation `scale`."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul_(scale)
