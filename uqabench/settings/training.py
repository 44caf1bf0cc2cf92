"""Settings of the training loop that every stage shares."""

from __future__ import annotations

from uqabench.settings.schema import section, setting


@section("optim")
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = setting(1e-4, "peak learning rate", gt=0, le=1e3)
    weight_decay: float = setting(0.01, "decoupled weight decay of matrices", ge=0, le=100)
    betas: tuple[float, ...] = setting((0.9, 0.98), "decay rates of AdamW's two moments", ge=0, lt=1, size=(2, 2))
    warmup: float = setting(0.05, "share of all steps over which the learning rate rises", ge=0, le=1)
    final_lr: float = setting(0.1, "learning rate at the end, as a share of lr", ge=0, le=1)
    clip: float = setting(1.5, "largest norm of the gradient (published alignment: 1.5)", gt=0, le=1e9)
    epochs: int = setting(10, "passes over the data", ge=1, le=10**9)
    max_steps: int = setting(0, "most optimiser steps, 0 for no bound", ge=0, le=10**9)
    bf16: bool = setting(False, "bfloat16 autocast, with fp32 weights; pre-training does so on GPUs only")
    checkpoint_seconds: float = setting(
        20.0,
        "least seconds from one checkpoint to the next; 0: after each step",
        ge=0,
        le=1e9,
        in_key=False,
    )
