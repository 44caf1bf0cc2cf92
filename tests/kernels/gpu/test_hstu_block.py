"""HSTU's block as one operator on a GPU against the operators that it is made of, one after the other."""

from __future__ import annotations

import pytest
import torch

from uqabench.encoders import build_encoder
from uqabench.kernels import hstu_attention, linear_silu, norm_gate, use_backend

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, outputs_and_gradients
from .conftest import DEVICE

pytest.importorskip("triton")

from uqabench.kernels.hstu_attention.block import hstu_block, runs_as_one  # noqa: E402

LENGTHS, MAX_LEN, HEADS, QK, V, WIDTH = [35, 0, 70, 1], 72, 2, 16, 19, 24


def make_inputs(bias: bool, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (sum(LENGTHS), WIDTH), "weight": (2 * HEADS * (QK + V), WIDTH)}
    shapes |= {"position_bias": (2 * MAX_LEN - 1,), "time_bias": (9,)} if bias else {}
    inputs = {name: torch.randn(shape, generator=generator).to(dtype) / 2 for name, shape in shapes.items()}
    if bias:
        inputs["timestamps"] = torch.randint(0, 60, (sum(LENGTHS),), generator=generator).cumsum(0)
    return inputs


def in_one(dropout_p: float, seed: torch.Tensor):
    def call(x, weight, **tables):
        offsets = offsets_of(LENGTHS).to(x.device)
        sizes = {"heads": HEADS, "qk_dim": QK, "v_dim": V, "max_len": MAX_LEN, "eps": 1e-6, "dropout_p": dropout_p}
        return hstu_block(x, weight, offsets, **sizes, seed=seed.to(x.device), **tables)

    return call


def one_after_the_other(dropout_p: float, seed: torch.Tensor):
    def call(x, weight, **tables):
        u, v, q, k = linear_silu(x, weight).split([HEADS * V] * 2 + [HEADS * QK] * 2, dim=1)
        q, k, v = (part.unflatten(1, (HEADS, -1)) for part in (q, k, v))
        attended = hstu_attention(q, k, v, offsets_of(LENGTHS), max_len=MAX_LEN, **tables)
        return norm_gate(attended.flatten(1), u, 1e-6, dropout_p, seed)

    return call


@pytest.mark.parametrize("dropout_p", [0.0, 0.25])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_as_its_operators(dtype, bias, dropout_p):
    if bias and dropout_p:
        pytest.skip("each by itself")
    inputs, seed = make_inputs(bias, dtype), torch.tensor(12)
    with use_backend("reference"):
        doubled = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        expected = outputs_and_gradients(one_after_the_other(dropout_p, seed), doubled)
    got = outputs_and_gradients(in_one(dropout_p, seed), {name: x.to(DEVICE) for name, x in inputs.items()})
    assert_close({name: x.cpu() for name, x in got.items()}, expected, TOLERANCES[dtype])


def test_the_encoder_runs_it_where_its_operators_run_by_triton():
    """The same states and gradients of the encoder's weights as by plain torch."""
    torch.manual_seed(0)
    encoder = build_encoder("hstu", "tiny", layers=1, dropout=0.0).train().to(DEVICE)
    x, offsets = torch.randn(45, encoder.width, device=DEVICE), offsets_of([40, 0, 5]).to(DEVICE)
    stamps = (torch.arange(45) * 3_600).to(DEVICE)
    found = {}
    for backend in ("eager", "triton"):
        with use_backend(backend):
            assert runs_as_one(x.device, x.dtype) == (backend == "triton")
            states = encoder(x, offsets, stamps)
            found[backend] = [states, *torch.autograd.grad(states.square().sum(), list(encoder.parameters()))]
    for got, expected in zip(found["triton"], found["eager"], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(expected.detach().abs().max())))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_len": 69}, "max_len is 69"),
        ({"weight": torch.zeros(3, WIDTH)}, "weight must have shape"),
        ({"offsets": torch.tensor([0, 3])}, "offsets"),
        ({"time_bias": torch.zeros(9)}, "timestamps must be a tensor"),
        ({"dropout_p": 0.5}, "seed must be a tensor"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(changed, message):
    inputs = make_inputs(False, torch.float32)
    sizes = {"heads": HEADS, "qk_dim": QK, "v_dim": V, "max_len": MAX_LEN, "eps": 1e-6}
    with pytest.raises((TypeError, ValueError), match=message):
        hstu_block(**(inputs | {"offsets": offsets_of(LENGTHS)} | sizes | changed))
