"""AdamW on sparse gradients against brute force over every row and step."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.kernels import flush_sparse_adamw_, sparse_adamw_, use_backend
from uqabench.kernels.adamw import reference
from uqabench.kernels.backend import available, native_module

BACKENDS = [name for name, problem in available("sparse_adamw_").items() if problem is None and name != "triton"]
SETTINGS = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.3}
STATE = ("table", "exp_avg", "exp_avg_sq", "last_step", "last_decay")


def new_state(rows, width, dtype=torch.float32, seed=0):
    table = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    zeros = [torch.zeros_like(table) for _ in range(2)]
    steps, decay = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.float64)
    return dict(zip(STATE, (table, *zeros, steps, decay), strict=True))


def batches(rows, width, steps, most, dtype=torch.float32, seed=0):
    """Ids, repeated or not, and their gradients; some steps touch nothing."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(rows, (int(torch.randint(most + 1, (), generator=g)),), generator=g)
        yield ids, torch.randn(len(ids), width, generator=g, dtype=torch.float64).to(dtype)


def schedule(steps):
    return [0.0 if t == 0 else 0.1 / (1 + t % 5) for t in range(steps)]


def train(state, data, lrs):
    log_decay = 0.0
    for step, ((ids, grads), lr) in enumerate(zip(data, lrs, strict=True), start=1):
        log_decay = sparse_adamw_(**state, ids=ids, grads=grads, step=step, log_decay=log_decay, lr=lr, **SETTINGS)
    return log_decay


def flush(state, step, log_decay):
    flush_sparse_adamw_(**state, step=step, log_decay=log_decay, betas=SETTINGS["betas"])


def brute_force(table, data, lrs):
    """The specification on dense gradients in which the repeats are summed."""
    grads, touched = torch.zeros(len(lrs), *table.shape, dtype=torch.float64), torch.zeros(len(lrs), len(table)).bool()
    for step, (ids, values) in enumerate(data):
        grads[step].index_add_(0, ids, values.double())
        touched[step, ids] = True
    return reference.adamw(table, grads, touched, lrs, **SETTINGS)


@pytest.mark.parametrize("backend", BACKENDS)
@given(rows=st.integers(1, 9), width=st.integers(0, 37), steps=st.integers(0, 12), seed=st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_any_pattern_of_touches_under_any_schedule(backend, rows, width, steps, seed):
    data, state = list(batches(rows, width, steps, most=6, seed=seed)), new_state(rows, width)
    expected = brute_force(state["table"], data, schedule(steps))
    with use_backend(backend):
        flush(state, steps, train(state, data, schedule(steps)))
    for name, want in zip(STATE, expected, strict=False):
        torch.testing.assert_close(state[name].double(), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    data, state = list(batches(7, 5, 9, most=6, dtype=dtype)), new_state(7, 5, dtype)
    expected = brute_force(state["table"], data, schedule(9))
    flush(state, 9, train(state, data, schedule(9)))
    tolerance = 1e-12 if dtype == torch.float64 else 0.05
    for name, want in zip(STATE, expected, strict=False):
        torch.testing.assert_close(state[name].double(), want, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=native_module().instruction_sets())
def instruction_set(request):
    widest = native_module().instruction_set()
    native_module().set_instruction_set(request.param)
    yield request.param
    native_module().set_instruction_set(widest)


@pytest.mark.parametrize(("rows", "width"), [(5_000, 19), (300, 128)])
def test_large_tables_on_every_instruction_set(instruction_set, rows, width):
    """More rows than one digit of the sort holds, more than one task, and a row with many gradients."""
    data = [(torch.cat([ids, ids.new_full((9,), 3)]), g) for ids, g in batches(rows, width, 4, most=900)]
    data = [(ids, torch.cat([g, g.new_ones(9, width)])) for ids, g in data]
    state, plain = new_state(rows, width), new_state(rows, width)
    with use_backend("native"):
        log_decay = train(state, data, schedule(4))
    with use_backend("eager"):
        assert train(plain, data, schedule(4)) == log_decay
    for name in STATE:
        torch.testing.assert_close(state[name], plain[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 5])
def test_native_is_the_same_to_the_bit_on_any_number_of_threads(threads):
    results, before = [], torch.get_num_threads()
    for number in (1, threads):
        torch.set_num_threads(number)
        results.append(new_state(500, 37))
        with use_backend("native"):
            train(results[-1], batches(500, 37, 5, most=2_000), schedule(5))
    torch.set_num_threads(before)
    assert all(torch.equal(results[0][name], results[1][name]) for name in STATE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeats_are_summed_in_the_order_of_occurrence(backend):
    """In fp32, 1e8 + 1 - 1e8 is 0 in this order and 1 in another."""
    state, ids = new_state(3, 1), torch.tensor([2, 1, 2, 2])
    grads = torch.tensor([[1e8], [5.0], [1.0], [-1e8]])
    if backend == "reference":
        grads[0], grads[3] = 1e17, -1e17  # its sums are in float64
    with use_backend(backend):
        sparse_adamw_(**state, ids=ids, grads=grads, step=1, lr=0.1, **SETTINGS)
    assert state["exp_avg"].flatten().tolist() == pytest.approx([0.0, 0.5, 0.0])
    assert state["last_step"].tolist() == [0, 1, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_are_not_touched_stay_to_the_bit_and_nan_stays_in_its_row(backend):
    state = new_state(6, 10)
    before, grads = state["table"].clone(), torch.ones(3, 10)
    grads[1, 4] = math.nan
    with use_backend(backend):
        sparse_adamw_(**state, ids=torch.tensor([5, 0, 3]), grads=grads, step=1, lr=0.1)
    assert torch.equal(state["table"][[1, 2, 4]], before[[1, 2, 4]])
    assert state["table"].isnan().nonzero().tolist() == [[0, 4]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_a_wider_table(backend):
    wide, state = torch.zeros(4, 3 * 9), new_state(4, 9)
    strided = dict(state)
    for i, name in enumerate(STATE[:3]):
        strided[name] = wide[:, i * 9 : (i + 1) * 9].copy_(state[name])
    strided["last_step"], strided["last_decay"] = state["last_step"].clone(), state["last_decay"].clone()
    grads = torch.randn(3, 20)[:, 4:13]
    with use_backend(backend):
        for s in (state, strided):
            sparse_adamw_(**s, ids=torch.tensor([1, 3, 1]), grads=grads, step=1, lr=0.1)
    assert all(torch.equal(state[name], strided[name]) for name in STATE)


def test_it_is_registered_correctly_and_compiles():
    state, ids, grads = new_state(5, 4), torch.tensor([1, 4, 1]), torch.randn(3, 4)
    arguments = (*state.values(), ids, grads, 1, -0.01, 0.1, 0.9, 0.99, 1e-8)
    torch.library.opcheck(torch.ops.uqabench.sparse_adamw, arguments)

    def call(table, exp_avg, exp_avg_sq, last_step, last_decay):
        return sparse_adamw_(table, exp_avg, exp_avg_sq, last_step, last_decay, ids, grads, step=1, lr=0.1)

    traced = new_state(5, 4)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    assert compiled(**traced) == pytest.approx(call(**state))
    assert all(torch.equal(state[name], traced[name]) for name in STATE)


def test_autograd_notices_a_table_that_changed_under_a_graph():
    state = new_state(4, 2)
    loss = state["table"].requires_grad_().square().sum()
    with use_backend("native"):
        sparse_adamw_(**state, ids=torch.tensor([1]), grads=torch.ones(1, 2), step=1, lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def good_arguments():
    grads = {"ids": torch.tensor([1, 3]), "grads": torch.zeros(2, 2)}
    return new_state(4, 2) | grads | {"step": 1, "log_decay": 0.0, "lr": 0.1, **SETTINGS}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"table": torch.zeros(4)}, ValueError, "table must have shape"),
        ({"exp_avg": torch.zeros(3, 2)}, ValueError, r"exp_avg must have shape \(4, 2\)"),
        ({"exp_avg_sq": torch.zeros(4, 2).double()}, TypeError, "exp_avg_sq must be float32"),
        ({"last_step": torch.zeros(4)}, TypeError, "last_step must be int64"),
        ({"last_decay": torch.zeros(4)}, TypeError, "last_decay must be float64"),
        ({"ids": torch.tensor([1.0, 3.0])}, TypeError, "ids must be int64"),
        ({"ids": torch.tensor([1, 4])}, ValueError, r"ids must lie in \[0, 4\), but holds 4"),
        ({"ids": torch.tensor([-1, 3])}, ValueError, r"ids must lie in \[0, 4\), but holds -1"),
        ({"grads": torch.zeros(3, 2)}, ValueError, r"grads must have shape \(2, 2\)"),
        ({"grads": torch.zeros(2, 2).double()}, TypeError, "grads must be float32"),
        ({"step": 0}, ValueError, "step must be above 0"),
        ({"step": 1.0}, TypeError, "step must be an int"),
        ({"log_decay": math.nan}, ValueError, "log_decay must be finite"),
        ({"lr": -0.1}, ValueError, "lr must be at least 0"),
        ({"lr": torch.tensor(0.1)}, TypeError, "lr must be a number"),
        ({"lr": 4.0}, ValueError, r"lr \* weight_decay must be below 1"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must lie in \[0, 1\)"),
        ({"betas": 0.9}, TypeError, "betas must be two numbers"),
        ({"eps": -1.0}, ValueError, "eps must be at least 0"),
        ({"weight_decay": math.inf}, ValueError, "weight_decay must be finite"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    sparse_adamw_(**good_arguments())
    with pytest.raises(error, match=message):
        sparse_adamw_(**good_arguments() | change)


def test_the_module_checks_what_could_leave_memory():
    numbers = {"step": 1, "decayed": 0.0, "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "threads": 1}
    arrays = {name: x.numpy() for name, x in good_arguments().items() if isinstance(x, torch.Tensor)}
    native_module().sparse_adamw(**arrays, **numbers)
    shared_row = torch.zeros(1, 2).expand(4, 2)
    for change, message in [
        ({"ids": torch.tensor([1, 4])}, r"ids must lie in \[0, 4\)"),
        ({"grads": torch.zeros(1, 2)}, "grads has the wrong shape"),
        ({"last_decay": torch.zeros(3, dtype=torch.float64)}, "last_decay has the wrong shape"),
        ({"exp_avg": torch.zeros(4, 3)}, "exp_avg has the wrong shape"),
        ({"exp_avg": shared_row}, "exp_avg's rows must not overlap"),
    ]:
        with pytest.raises(ValueError, match=message):
            native_module().sparse_adamw(**(arrays | {name: x.numpy() for name, x in change.items()}), **numbers)
