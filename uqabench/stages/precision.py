"""Which precision pre-training computes in: bfloat16 with fp32 master weights on a GPU, float32 on a CPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from uqabench.settings.training import OptimConfig


def pretraining_optim(config: OptimConfig, device: torch.device) -> OptimConfig:
    """`config` as it holds on `device`: a CPU, which has no fast products of bf16, trains in float32 whatever it says,
    and one preset serves both."""
    return config if device.type == "cuda" else replace(config, bf16=False)


def loss_dtype(config: OptimConfig) -> torch.dtype:
    """What queries and the copy of the item table are for the loss: with bf16, its products run on tensor cores."""
    return torch.bfloat16 if config.bf16 else torch.float32


def use_tensor_cores(device: torch.device) -> None:
    """On a GPU, products of float32 matrices outside of autocast are TF32 from now on: 10 bits, fp32 sums."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
