"""The sparse AdamW step: runs around the chunks' bounds, wide and narrow rows, every dtype."""

from __future__ import annotations

import math

import pytest
import torch

from uqabench.kernels import sparse_adamw_, use_backend

from .conftest import DEVICE

NAMES = ("table", "exp_avg", "exp_avg_sq", "last_step", "last_decay")
SETTINGS = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.3}
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def state_of(rows, width, dtype):
    generator = torch.Generator().manual_seed(1)
    tables = torch.randn(3, rows, width, generator=generator, dtype=torch.float64)
    tables[2] = tables[2].square()
    last_step = torch.randint(0, 4, (rows,), generator=generator)
    return dict(zip(NAMES, (*tables.to(dtype), last_step, -0.01 * last_step.double()), strict=True))


def results(backend, state, ids, grads, device, **settings):
    state = {name: x.to(device, copy=True) for name, x in state.items()}
    with use_backend(backend):
        arguments = {"step": 5, "log_decay": -0.05, "lr": 0.1, **SETTINGS, **settings}
        sparse_adamw_(**state, ids=ids.to(device), grads=grads.to(device), **arguments)
    return {name: x.cpu() for name, x in state.items()}


def ids_of(counts):
    """Row i occurs counts[i] times, mixed."""
    ids = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(2))]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "counts",
    [(1,), (32,), (33,), (31, 2, 0, 1), (64, 32, 1), (5, 150, 0, 3), (0, 0)],
    ids=str,
)
def test_runs_around_the_chunks(counts, dtype):
    state, ids = state_of(len(counts) + 1, 5, dtype), ids_of(counts)
    grads = torch.randn(len(ids), 5, generator=torch.Generator().manual_seed(3)).to(dtype)
    wide = {name: x.double() if x.is_floating_point() else x for name, x in state.items()}
    expected = results("reference", wide, ids, grads.double(), "cpu")
    actual = results("triton", state, ids, grads, DEVICE)
    assert torch.equal(actual["last_step"], expected["last_step"])
    assert torch.equal(actual["last_decay"], expected["last_decay"])
    for name in NAMES[:3]:
        tolerance = TOLERANCES[dtype]
        torch.testing.assert_close(actual[name].double(), expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("width", [0, 1, 128, 700])
def test_widths_and_slices_of_a_wider_table(width):
    state, ids = state_of(4, width, torch.float32), torch.tensor([1, 3, 1])
    joint = torch.zeros(4, 3 * width + 1)
    for i, name in enumerate(NAMES[:3]):
        joint[:, i * width : (i + 1) * width] = state[name]
    grads = torch.randn(3, width + 2, generator=torch.Generator().manual_seed(3))[:, 1 : width + 1]
    expected = results("reference", state, ids, grads, "cpu")
    joint, device_ids = joint.to(DEVICE), ids.to(DEVICE)
    strided = {name: joint[:, i * width : (i + 1) * width] for i, name in enumerate(NAMES[:3])}
    strided |= {name: state[name].to(DEVICE) for name in NAMES[3:]}
    with use_backend("triton"):
        sparse_adamw_(**strided, ids=device_ids, grads=grads.to(DEVICE), step=5, log_decay=-0.05, lr=0.1, **SETTINGS)
    for name in NAMES:
        torch.testing.assert_close(strided[name].cpu(), expected[name], rtol=2e-5, atol=2e-5)


def test_order_of_occurrence_no_momentum_and_nan_in_its_row():
    state = {name: torch.zeros_like(x) for name, x in state_of(4, 1, torch.float32).items()}
    ids, grads = torch.tensor([2, 1, 2, 2, 0]), torch.tensor([[1e8], [5.0], [1.0], [-1e8], [math.nan]])
    after = results("triton", state, ids, grads, DEVICE, betas=(0.0, 0.98), weight_decay=0.0, log_decay=0.0)
    assert after["exp_avg"].flatten().tolist() == pytest.approx([math.nan, 5.0, 0.0, 0.0], nan_ok=True)
    assert after["last_step"].tolist() == [5, 5, 5, 0]
    assert after["table"].isnan().flatten().tolist() == [True, False, False, False]


def test_it_is_registered_correctly():
    state = {name: x.to(DEVICE) for name, x in state_of(5, 4, torch.float32).items()}
    ids, grads = torch.tensor([1, 4, 1], device=DEVICE), torch.randn(3, 4, device=DEVICE)
    arguments = (*state.values(), ids, grads, 5, -0.01, 0.1, 0.9, 0.99, 1e-8)
    torch.library.opcheck(torch.ops.uqabench.sparse_adamw_triton, arguments)
