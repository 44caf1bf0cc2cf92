"""What is kept on a tensor: until it changes, for whom a CUDA graph's capture makes it, and across streams (faked)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uqabench.kernels import checks, memory
from uqabench.kernels.memory import know, know_bounds, know_offsets, known, remember
from uqabench.kernels.triton_tools import tile_schedule


class OnGPU(torch.Tensor):
    """A CPU tensor that says that it lies on a GPU."""

    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl


class Stream:
    def __init__(self, log):
        self.log = log

    def record_event(self):
        self.log.append(("record", self))
        return ("event of", self)

    def wait_event(self, event):
        self.log.append(("wait", self, event))


@pytest.fixture
def gpu(monkeypatch):
    """Fakes of what `memory` asks torch.cuda for: `gpu.stream` is current, and is being captured if `gpu.captured`."""

    class GPU:
        log: list = []
        captured = False

    gpu = GPU()
    gpu.log, gpu.stream = [], None
    gpu.streams = [Stream(gpu.log), Stream(gpu.log)]
    gpu.stream = gpu.streams[0]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: gpu.stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: gpu.captured)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: gpu.log.append(("used", id(self), stream)), raising=False
    )
    return gpu


def offsets_on_gpu(*values):
    return torch.tensor(values).as_subclass(OnGPU)


def test_kept_until_the_tensor_changes():
    x, made = torch.tensor([0, 3]), []
    for _ in range(2):
        assert remember(x, "n", lambda: made.append(1) or len(made)) == 1
    x[1] = 4
    assert remember(x, "n", lambda: made.append(1) or len(made)) == 2
    with torch.inference_mode():
        y = torch.tensor([0, 3])
        know(y, {"n": 7})  # cannot tell later whether it holds
        assert known(y, "n") is None and remember(y, "n", lambda: 8) == 8


def test_what_the_host_knows_is_not_read(monkeypatch):
    offsets, ids = torch.tensor([0, 2, 5]), torch.tensor([4, 0, 9, 1, 1])
    know_offsets(offsets, np.array([0, 2, 5]))
    know_bounds(ids, np.array([4, 0, 9, 1, 1]))
    for name in ("numpy", "tolist", "item"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, **_: pytest.fail("the device was read"))
    checks.check_offsets(offsets, ids)
    checks.check_indices(ids, 10, "ids")
    checks.check_indices(ids, 10, "ids", ignored=-100)
    with pytest.raises(ValueError, match="must end at the number of tokens, 4"):
        monkeypatch.undo()
        checks.check_offsets(offsets, ids[:4])
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 9\), but holds 9"):
        checks.check_indices(ids, 9, "ids")
    assert checks.host_longest(offsets) == 3 and checks.host_lengths(offsets) == [2, 3]


@pytest.mark.parametrize(("values", "message"), [((1, 2), "begin with 0"), ((0, 3, 2, 5), r"offsets\[2\] = 2 after 3")])
def test_no_offsets_are_refused_where_they_are_packed(values, message):
    with pytest.raises(ValueError, match=message):
        know_offsets(torch.tensor(values), np.array(values))


def test_a_capture_and_eager_calls_share_nothing_of_the_device(gpu):
    """What a capture makes is filled when the graph runs; what was made before it may be freed before it runs."""
    offsets, made = offsets_on_gpu(0, 3), []

    def build():
        made.append(torch.zeros(1))
        return made[-1]

    gpu.captured = True
    first, second = remember(offsets, "tiles", build), remember(offsets, "tiles", build)
    assert first is not second
    gpu.captured = False
    eager = remember(offsets, "tiles", build)
    assert len(made) == 3 and eager is made[2] and remember(offsets, "tiles", build) is eager
    gpu.captured = True
    assert remember(offsets, "tiles", build) is made[3]
    assert remember(offsets, "longest", lambda: 3, on_host=True) == 3  # the host's values are a constant of the graph
    assert remember(offsets, "longest", lambda: 4, on_host=True) == 3


def test_tile_schedules_follow_the_rule(gpu):
    offsets = offsets_on_gpu(0, 3, 40)
    gpu.captured = True
    captured = tile_schedule(offsets, 16)
    gpu.captured = False
    eager = tile_schedule(offsets, 16)
    assert captured[1] is not eager[1] and tile_schedule(offsets, 16)[1] is eager[1]
    assert eager[1].tolist() == captured[1].tolist() == [0, 3, 4]


def test_another_stream_waits_and_the_allocator_hears_of_it(gpu):
    offsets = offsets_on_gpu(0, 3)
    table = torch.zeros(2)
    remember(offsets, "tiles", lambda: (table, [table]))
    one, other = gpu.streams
    assert gpu.log == [("record", one)]
    remember(offsets, "tiles", lambda: None)
    assert gpu.log == [("record", one)]  # on its own stream nothing waits
    gpu.stream = other
    assert remember(offsets, "tiles", lambda: None)[0] is table
    assert gpu.log[1:] == [("wait", other, ("event of", one)), ("used", id(table), other), ("used", id(table), other)]
    gpu.log.clear()
    remember(offsets, "longest", lambda: 3, on_host=True)
    gpu.stream = one
    remember(offsets, "longest", lambda: 3, on_host=True)
    assert gpu.log == []


def test_every_tensor_of_an_order_is_found():
    from uqabench.kernels.time_major import time_major

    order = time_major(torch.tensor([0, 2, 5]))
    found = {id(x) for x in memory._tensors([order, (order.ranks,)])}
    assert found == {id(x) for x in (order.tokens, order.positions, order.sequences, order.ranks)}
