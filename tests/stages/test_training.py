"""The training loop: resuming, schedule, stopping, and what it says when a loss is not a number."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from uqabench.errors import InputError, RunError
from uqabench.stages.training import OptimConfig, Trainer, seed_everything

BATCHES, EPOCHS = 5, 3
TOTAL = BATCHES * EPOCHS


class Killed(BaseException):
    """Stands for a signal: nothing in the loop may catch it."""


def batches_of(epoch):
    generator = torch.Generator().manual_seed(epoch)
    return list(torch.randn(BATCHES, 4, 6, generator=generator))


class Clock:
    """`time.monotonic` that moves only when what it is told to watch is called."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def passes(self, seconds, function):
        def call(*args, **kwargs):
            self.now += seconds
            return function(*args, **kwargs)

        return call


class Job:
    """A small regression with dropout, whose weights depend on the random state of every step."""

    def __init__(self, folder, kill_at=None, *, config=None, stop_after=None, **kwargs):
        seed_everything(3, torch.device("cpu"))
        self.model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.3), nn.Linear(5, 1))
        self.head = nn.Linear(1, 1)
        self.kill_at, self.stop_after, self.epochs_seen = kill_at, stop_after, []
        config = config or OptimConfig(lr=1e-2, epochs=EPOCHS, checkpoint_seconds=0.0)
        self.trainer = Trainer(
            {"model": self.model, "head": self.head}, self.loss, config, total_steps=TOTAL, work=Path(folder),
            log=Path(folder) / "log.jsonl", label="job", progress=False, **kwargs,
        )  # fmt: skip

    def loss(self, batch):
        if self.trainer.step == self.kill_at:
            raise Killed
        return (self.head(self.model(batch)) - batch.sum(1, keepdim=True)).square().mean(), len(batch)

    def after_epoch(self, epoch):
        self.epochs_seen.append(epoch)
        self.trainer.extra["seen"] = self.trainer.extra.get("seen", 0) + 1
        return self.stop_after is not None and self.trainer.extra["seen"] >= self.stop_after

    def run(self):
        self.trainer.run(batches_of, self.after_epoch)
        return self

    def state(self):
        tensors = {**self.model.state_dict(), **{f"head.{k}": v for k, v in self.head.state_dict().items()}}
        return {name: tensor.clone() for name, tensor in tensors.items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    job = Job(tmp_path_factory.mktemp("job")).run()
    return job.state(), job.trainer.records


@settings(max_examples=15)
@given(st.lists(st.integers(0, TOTAL - 1), min_size=1, max_size=3, unique=True).map(sorted))
def test_a_run_killed_at_any_step_ends_in_the_same_weights(undisturbed, kills):
    with tempfile.TemporaryDirectory() as folder:
        for step in kills:
            job = Job(folder, kill_at=step)
            with pytest.raises(Killed):
                job.run()
            assert job.trainer.step == step
        job = Job(folder)
        assert job.trainer.step == kills[-1]  # a checkpoint after every step
        job.run()
    assert equal(job.state(), undisturbed[0])
    assert job.trainer.records == undisturbed[1]
    assert job.trainer.extra == {"seen": EPOCHS}


def test_checkpoints_far_apart_repeat_steps_and_change_nothing(tmp_path, undisturbed, monkeypatch):
    """Saved after steps 4 and 8 only, killed at 6 and at 9."""
    config = OptimConfig(lr=1e-2, epochs=EPOCHS, checkpoint_seconds=3.5)
    clock = Clock(monkeypatch)
    resumed = []
    for step in (6, 9, None):
        job = Job(tmp_path, kill_at=step, config=config)
        job.trainer.loss_fn = clock.passes(1, job.loss)
        resumed.append(job.trainer.step)
        try:
            job.run()
        except Killed:
            continue
    assert resumed == [0, 4, 8]
    assert equal(job.state(), undisturbed[0]) and job.trainer.records == undisturbed[1]


@pytest.mark.parametrize(("interval", "saved_at"), [(3.5, [4, 53]), (0.0, [*range(1, 61)])])
def test_a_slow_save_makes_room_for_training(tmp_path, monkeypatch, caplog, interval, saved_at):
    """A save of a second is 2 % of what follows it, unless each step is to be saved."""
    clock, seen = Clock(monkeypatch), []
    job = Job(tmp_path, config=OptimConfig(epochs=12, checkpoint_seconds=interval))
    trainer = job.trainer
    trainer.total_steps, trainer.loss_fn = 60, clock.passes(1, job.loss)
    write = trainer.checkpoints._write
    trainer.checkpoints._write = clock.passes(1 if interval else 5, lambda *a: seen.append(trainer.step) or write(*a))
    with caplog.at_level("DEBUG", logger="uqabench"):
        job.run()
    assert seen[: len(saved_at)] == saved_at and trainer.checkpoints.seconds == (2 if interval else 300)
    assert trainer.seconds == (62 if interval else 360)
    assert f"{len(saved_at)} checkpoints took" in caplog.text


@settings(max_examples=5)
@given(st.lists(st.integers(0, TOTAL - 1), min_size=1, max_size=3, unique=True).map(sorted))
def test_checkpoints_of_a_thread_lose_nothing_either(undisturbed, kills):
    def job(folder, **kwargs):
        made = Job(folder, **kwargs)
        made.trainer.checkpoints.in_thread = True
        return made

    with tempfile.TemporaryDirectory() as folder:
        for step in kills:
            with pytest.raises(Killed):
                job(folder, kill_at=step).run()
        last = job(folder)
        assert last.trainer.step <= kills[-1]
        last.run()
    assert equal(last.state(), undisturbed[0]) and last.trainer.records == undisturbed[1]


def test_a_finished_run_is_not_trained_further(tmp_path, undisturbed):
    Job(tmp_path).run()
    again = Job(tmp_path)
    assert again.trainer.step == TOTAL
    again.run()
    assert again.trainer.step == TOTAL and equal(again.state(), undisturbed[0])


def test_equal_seeds_equal_weights_another_seed_others(tmp_path, undisturbed):
    (tmp_path / "a").mkdir()
    job = Job(tmp_path / "a")
    torch.manual_seed(4)  # another dropout
    assert not equal(job.run().state(), undisturbed[0])


def test_learning_rates(tmp_path):
    config = OptimConfig(lr=0.5, warmup=0.2, final_lr=0.1, epochs=1)
    trainer = Job(tmp_path, config=config).trainer
    assert trainer.total_steps == 15  # three of them warm-up
    assert [trainer.learning_rate(step) for step in range(3)] == pytest.approx([0.5 / 3, 1.0 / 3, 0.5])
    assert trainer.learning_rate(3) == 0.5
    assert trainer.learning_rate(9) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5))  # half way down
    assert trainer.learning_rate(15) == pytest.approx(0.05) == trainer.learning_rate(99)
    for step in range(3, 15):
        share = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 12))
        assert trainer.learning_rate(step) == pytest.approx(0.5 * share)


def test_groups_scale_their_rate_and_spare_biases_the_decay(tmp_path):
    job = Job(tmp_path, lr_scale={"head": 10.0})
    rates = {}

    def watch(*_):
        for group in job.trainer.optimizer.param_groups:
            for parameter in group["params"]:
                rates[parameter] = group["lr"], group["weight_decay"]

    job.trainer.optimizer.register_step_pre_hook(watch)
    job.trainer._step(batches_of(0)[0])
    first = job.trainer.learning_rate(0)
    assert rates[job.model[0].weight] == (first, 0.01) and rates[job.model[0].bias] == (first, 0.0)
    assert rates[job.head.weight] == (10 * first, 0.01) and rates[job.head.bias] == (10 * first, 0.0)


def test_gradients_are_clipped(tmp_path):
    job = Job(tmp_path, config=OptimConfig(clip=1e-3, epochs=1))
    seen = []

    def watch(*_):
        seen.append(sum(float(p.grad.square().sum()) for p in job.trainer.parameters) ** 0.5)

    job.trainer.optimizer.register_step_pre_hook(watch)
    job.trainer._step(batches_of(0)[0])
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


def test_max_steps_and_early_stopping(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    config = OptimConfig(epochs=EPOCHS, max_steps=7, checkpoint_seconds=1e9)
    job = Job(tmp_path / "a", config=config).run()
    assert job.trainer.step == 7 and job.epochs_seen == [0, 1] and job.trainer.total_steps == 7
    assert job.trainer.learning_rate(7) == pytest.approx(config.lr * config.final_lr)
    job = Job(tmp_path / "b", stop_after=2).run()
    assert job.trainer.step == 2 * BATCHES and job.epochs_seen == [0, 1]
    # Killed in its last epoch, it stops at the same place.
    with pytest.raises(Killed):
        Job(tmp_path / "c", stop_after=2, kill_at=2 * BATCHES - 1).run()
    again = Job(tmp_path / "c", stop_after=2).run()
    assert again.trainer.step == 2 * BATCHES and equal(again.state(), job.state())


def test_a_step_in_parts_is_the_whole_step(tmp_path):
    """Gradients of the parts' losses, weighted by their shares, are the whole batch's; so are loss and tokens."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    batch = batches_of(0)[0]
    whole = Job(tmp_path / "a")
    parted = Job(tmp_path / "b", parts=lambda rows: [(rows[:1], 0.25), (rows[1:], 0.75)])
    for job in (whole, parted):
        job.model.eval()  # without dropout, which draws for each part
    results = [job.trainer._step(batch) for job in (whole, parted)]
    assert whole.trainer.loss == pytest.approx(parted.trainer.loss, rel=1e-5) and results == [4, 4]
    for name, expected in whole.state().items():
        torch.testing.assert_close(parted.state()[name], expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_stage_step_and_way_out(tmp_path, bad):
    job = Job(tmp_path)
    before = job.loss
    job.trainer.loss_fn = lambda batch: (
        (before(batch)[0] * bad, 1) if job.trainer.step == 4 else before(batch)
    )  # fmt: skip
    with pytest.raises(RunError, match=f"job: the loss became {bad} at step 4: lower lr"):
        job.run()
    assert all(parameter.isfinite().all() for parameter in job.model.parameters())


def test_a_gradient_that_is_no_number_is_not_applied(tmp_path):
    job = Job(tmp_path)
    job.trainer.loss_fn = lambda batch: ((job.model[0].weight * 0).sum().sqrt(), 1)  # 0, with slope 1 / 0 · 0
    with pytest.raises(RunError, match="job: the gradient became nan at step 0"):
        job.run()
    assert job.model[0].weight.isfinite().all()


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Killed):
        Job(tmp_path, kill_at=3).run()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged \(.*\): delete it") as error:
        Job(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["losses", "optimizer", "modules"])
def test_a_checkpoint_of_another_version_is_named(tmp_path, lost):
    with pytest.raises(Killed):
        Job(tmp_path, kill_at=3).run()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state[lost]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
        Job(tmp_path)


def test_the_log_holds_losses_and_rates(tmp_path):
    config = OptimConfig(lr=1e-2, epochs=8, checkpoint_seconds=1e9)
    job = Job(tmp_path, config=config)
    job.trainer.total_steps = 8 * BATCHES
    job.run().trainer.write_log()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if "epoch" in row]
    steps = [row for row in rows if "train_loss" in row]
    assert [row["epoch"] for row in epochs] == list(range(8)) and [row["step"] for row in steps] == [20, 40]
    assert steps[0]["lr"] == pytest.approx(job.trainer.learning_rate(19))
    assert epochs[-1]["loss"] < epochs[0]["loss"]
