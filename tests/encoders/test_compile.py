"""torch.compile, torch.export and threads: every encoder is one graph, and gives the same states."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from uqabench.encoders import ENCODER_PRESETS, build_encoder
from uqabench.kernels.backend import available

LENGTHS = [9, 0, 12, 1, 30]
# Operators whose eager form reads the offsets on the host, which ends a graph.
BREAKING = {
    "gru4rec": ("gru",),
    "mamba4rec": ("causal_conv1d", "selective_scan"),
    "mamba2": ("causal_conv1d", "ssd_scan"),
}
encoders = pytest.mark.parametrize("name", ENCODER_PRESETS)


def build(name: str) -> nn.Module:
    for operator in BREAKING.get(name, ()):
        if available(operator)["native"] is not None:
            pytest.skip(f"{operator} has no native backend, and its eager one is no part of a graph")
    torch.manual_seed(0)
    return build_encoder(name, "tiny").eval()


def states_and_gradients(encoder: Callable[..., Tensor], parameters: list[nn.Parameter], *inputs: Tensor):
    x = inputs[0].detach().requires_grad_()
    states = encoder(x, *inputs[1:])
    gradients = torch.autograd.grad(states.square().sum(), [x, *parameters], materialize_grads=True)
    return [states.detach(), *gradients]


def assert_compiled_equals_eager(encoder: nn.Module, inputs: tuple[Tensor, ...], backend: str) -> None:
    torch.compiler.reset()
    parameters = list(encoder.parameters())
    expected = states_and_gradients(encoder, parameters, *inputs)
    compiled = torch.compile(encoder, backend=backend, fullgraph=True)
    for got, want in zip(states_and_gradients(compiled, parameters, *inputs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * max(1.0, want.abs().max().item()))


@encoders
def test_compiles_into_one_graph_with_gradients(packed: Callable, name: str) -> None:
    batch = packed(LENGTHS)
    assert_compiled_equals_eager(build(name), (batch.x, batch.offsets, batch.timestamps), "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trm++", "hstu"])
def test_compiles_with_inductor(packed: Callable, name: str) -> None:
    batch = packed(LENGTHS)
    assert_compiled_equals_eager(build(name), (batch.x, batch.offsets, batch.timestamps), "inductor")


@encoders
@pytest.mark.parametrize("has_times", [False, True])
def test_exports_with_any_number_of_tokens_and_sequences(packed: Callable, name: str, has_times: bool) -> None:
    if has_times and name != "hstu":
        pytest.skip("reads no timestamps")
    encoder = build(name)

    def inputs(lengths: list[int]) -> tuple[Tensor, ...]:
        batch = packed(lengths)
        return (batch.x, batch.offsets, batch.timestamps) if has_times else (batch.x, batch.offsets)

    tokens = torch.export.Dim("tokens", min=2, max=2**20)
    shapes = ({0: tokens}, {0: torch.export.Dim("offsets", min=2, max=2**20)}, {0: tokens})
    example = inputs(LENGTHS)
    program = torch.export.export(encoder, example, dynamic_shapes=shapes[: len(example)]).module()
    for lengths in (LENGTHS, [40], [1, 1, 1, 64, 0, 0, 7]):
        with torch.no_grad():
            torch.testing.assert_close(program(*inputs(lengths)), encoder(*inputs(lengths)), rtol=1e-5, atol=1e-5)


@encoders
def test_two_threads_do_not_disturb_each_other(packed: Callable, name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, "tiny").eval()
    parameters = list(encoder.parameters())
    batches = [packed(lengths, seed=seed) for seed, lengths in enumerate([[60, 7, 0, 33], [5, 64, 64, 2, 9]])]

    def run(i: int) -> list[Tensor]:
        return states_and_gradients(encoder, parameters, batches[i].x, batches[i].offsets, batches[i].timestamps)

    alone = [run(0), run(1)]
    together: list[list[list[Tensor]]] = [[], []]
    start = threading.Barrier(2)

    def repeat(i: int) -> None:
        torch.set_num_threads(2)
        start.wait()
        together[i] += [run(i) for _ in range(3)]

    workers = [threading.Thread(target=repeat, args=(i,)) for i in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in (0, 1):
        assert len(together[i]) == 3
        for results in together[i]:
            for got, want in zip(results, alone[i], strict=True):
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * max(1.0, want.abs().max().item()))
