"""bf16 reaches the loss with fp32 master weights, by the kernels of a GPU (interpreted), and a CPU trains in fp32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from uqabench.kernels.linear_cross_entropy import operator as kernels
from uqabench.settings import run_config
from uqabench.stages import pretrain as stage
from uqabench.stages import training
from uqabench.stages.precision import loss_dtype, pretraining_optim, use_tensor_cores
from uqabench.stages.pretrain import pretrain, training_batches

from .host_reads import as_on_a_gpu  # noqa: F401
from .test_hot_path import make_trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("objective", ["sl", "cl"])
def test_the_loss_kernels_get_bf16(small_store, pretrain_config, tmp_path, as_on_a_gpu, monkeypatch, objective):  # noqa: F811
    """Queries and table in bf16 to the Triton kernels; weights, gradients and moments in fp32; the loss near fp32's."""
    config = pretrain_config("hstu", objective=objective, batch_size=3, token_budget=64)
    config = replace(config, optim=replace(config.optim, bf16=True))
    seen, losses = [], []
    mean_loss = kernels._ONE

    def watched(backend, hidden, weight, *others):
        seen.append((hidden.dtype, weight.dtype))
        return mean_loss(backend, hidden, weight, *others)

    monkeypatch.setattr(kernels, "_ONE", watched)
    for optim in (config.optim, replace(config.optim, bf16=False)):
        (tmp_path / str(optim.bf16)).mkdir()
        job = replace(config, optim=optim)
        trainer, load = make_trainer(small_store, job, tmp_path / str(optim.bf16), loss_dtype(optim))
        for part in training_batches(small_store, config, 0)[:2]:
            trainer._step(load(part))
        losses.append(trainer.losses)
        table = trainer.modules["model"].item_weight
        state = trainer.optimizer.state[table]
        assert {x.dtype for x in (table, table.grad, state["exp_avg"], state["exp_avg_sq"])} == {torch.float32}
        assert table.grad.abs().sum() > 0
    assert seen == [(torch.bfloat16,) * 2] * 2 + [(torch.float32,) * 2] * 2
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_a_cpu_trains_in_fp32_whatever_the_preset_says(small_store, pretrain_config, tmp_path, monkeypatch):
    optim = run_config("published").pretrain.optim
    assert optim.bf16 and run_config("paper").pretrain.optim.bf16 and not run_config("demo").pretrain.optim.bf16
    assert pretraining_optim(optim, GPU).bf16 and not pretraining_optim(optim, CPU).bf16
    seen = []
    real = stage.linear_cross_entropy
    monkeypatch.setattr(stage, "linear_cross_entropy", lambda *a, **k: seen.append(a[0].dtype) or real(*a, **k))
    weights = []
    for bf16 in (False, True):
        config = pretrain_config(epochs=1)
        config = replace(config, optim=replace(config.optim, bf16=bf16, max_steps=2))
        artifact, _ = pretrain(small_store, config, progress=False).build(tmp_path / str(bf16))
        weights.append((artifact.path / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] and set(seen) == {torch.float32}


def test_products_of_fp32_are_tf32_on_a_gpu_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    use_tensor_cores(CPU)
    training.seed_everything(0, CPU)
    assert asked == []
    use_tensor_cores(GPU)
    assert asked == ["high"]
