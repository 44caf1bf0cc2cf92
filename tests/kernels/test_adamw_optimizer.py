"""The optimiser over parameters with dense and with sparse gradients."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import embedding

from uqabench.kernels import AdamW
from uqabench.kernels.adamw import reference

SETTINGS = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.3}


def model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.ParameterDict({"table": torch.randn(30, 8), "weight": torch.randn(8, 3), "bias": torch.zeros(3)})


def backward(params, seed, sparse=True, ids=None):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(30, (7,), generator=g) if ids is None else ids
    for p in params.values():
        p.grad = None
    rows = embedding(ids, params["table"], sparse=sparse)
    (rows @ params["weight"] + params["bias"]).tanh().sum().backward()


def optimizer_of(params, kind=AdamW, **more):
    groups = [{"params": [params["table"], params["weight"]], "weight_decay": 0.2}, {"params": [params["bias"]]}]
    return kind(groups, lr=0.05, weight_decay=0.0, **more)


def assert_equal(ours, theirs, **tolerance):
    for name in ours:
        torch.testing.assert_close(ours[name].detach(), theirs[name].detach(), **tolerance)


EXACT = {"rtol": 0, "atol": 0}


def test_when_all_rows_are_touched_it_is_torchs_own():
    ours, theirs = model(), model()
    sparse, dense = optimizer_of(ours), optimizer_of(theirs, torch.optim.AdamW)
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 3, gamma=0.5) for o in (sparse, dense)]
    for seed in range(10):
        ids = torch.cat([torch.arange(30), torch.tensor([4, 4])])
        backward(ours, seed, ids=ids)
        backward(theirs, seed, sparse=False, ids=ids)
        for stepped in (sparse, dense, *schedulers):
            stepped.step()
    assert sparse.param_groups[0]["lr"] == dense.param_groups[0]["lr"] < 0.05
    assert_equal(ours, theirs, rtol=1e-5, atol=1e-5)


def test_dense_parameters_take_torchs_fused_step():
    ours, theirs = model(), model()
    optimizers = optimizer_of(ours), optimizer_of(theirs, torch.optim.AdamW, fused=True)
    for seed, (params, optimizer) in itertools.product(range(4), zip((ours, theirs), optimizers, strict=True)):
        backward(params, seed, sparse=False)
        optimizer.step()
    assert_equal(ours, theirs, **EXACT)


@given(kinds=st.lists(st.sampled_from(["sparse", "dense", "flush", "none"]), max_size=12))
@settings(max_examples=20, deadline=None)
def test_dense_and_sparse_gradients_in_any_order(kinds):
    """Against brute force, in which a dense gradient touches every row."""
    table = torch.nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    start, optimizer = table.detach().clone(), AdamW([table], **SETTINGS)
    grads, touched, lrs, g = [], [], [], torch.Generator().manual_seed(1)
    for i, kind in enumerate(kinds):
        optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        table.grad = None
        if kind == "flush":
            optimizer.flush()
            continue
        if kind != "none":
            ids = torch.arange(6) if kind == "dense" else torch.randint(6, (3,), generator=g)
            values = torch.randn(len(ids), 4, generator=g)
            rows = torch.sparse_coo_tensor(ids[None], values, (6, 4), check_invariants=True)
            table.grad = values if kind == "dense" else rows
            grads.append(rows.to_dense())
            touched.append(torch.zeros(6).bool().index_fill_(0, ids, True))
            lrs.append(0.1 / (i + 1))
        optimizer.step()
    optimizer.flush()
    if grads:
        expected = reference.adamw(start, torch.stack(grads), torch.stack(touched), lrs, **SETTINGS)
        actual = (table.detach(), *(optimizer.state[table][name] for name in ("exp_avg", "exp_avg_sq")))
        for got, want in zip(actual, expected, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-5)


def saved_and_loaded(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_training_resumes_to_the_same_bits():
    whole = model()
    optimizer = optimizer_of(whole)
    for seed in range(5):
        backward(whole, seed)
        optimizer.step()
    resumed = model(seed=1)
    resumed.load_state_dict(saved_and_loaded(whole.state_dict()))
    second = optimizer_of(resumed)
    second.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    for params, stepped in ((whole, optimizer), (resumed, second)):
        for seed in range(5, 9):
            stepped.param_groups[0]["lr"] = 0.01 * seed
            backward(params, seed)
            stepped.step()
        stepped.flush()
    assert_equal(whole, resumed, **EXACT)


def test_state_of_torchs_own_loads():
    params = model()
    theirs = optimizer_of(params, torch.optim.AdamW)
    backward(params, 0, sparse=False)
    theirs.step()
    ours = optimizer_of(params)
    ours.load_state_dict(saved_and_loaded(theirs.state_dict()))
    backward(params, 1)
    ours.step()
    state = ours.state[params["table"]]
    assert int(state["step"]) == 2 and set(state["last_step"].tolist()) == {1, 2}


def test_a_closure_gives_the_loss_and_hooks_run_once():
    params, calls = model(), []
    optimizer = optimizer_of(params)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    torch.optim.AdamW(params.values())

    def closure():
        backward(params, 0)
        return torch.tensor(3.0, requires_grad=torch.is_grad_enabled())

    assert optimizer.step(closure).requires_grad and calls == [1]


def test_settings_of_groups_and_gradients_that_are_no_rows():
    with pytest.raises(ValueError, match="eps must be at least 0"):
        AdamW(model().values(), eps=-1.0)
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = AdamW([weight])
    weight.grad = torch.eye(3).to_sparse()
    with pytest.raises(ValueError, match=r"must be of rows of a \(V, d\) parameter"):
        optimizer.step()
