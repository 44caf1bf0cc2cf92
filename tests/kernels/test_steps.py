"""Attention of new tokens over cached keys and values is the last rows of attention over everything."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import causal_attention, causal_attention_step, hstu_attention, hstu_attention_step, use_backend
from uqabench.kernels.key_values import KeyValues

from .cases import offsets_of
from .conftest import TOLERANCES, assert_close, outputs_and_gradients, reference_results

OLD, NEW = [0, 7, 0, 3, 40, 41], [2, 1, 0, 0, 3, 3]
TARGETS = [1, 1, 0, 0, 0, 3]
MAX_LEN = 60
LIMITS = [{}, {"max_attn_len": 5}, {"contextual_seq_len": 4}, {"max_attn_len": 6, "contextual_seq_len": 3}]


def make_inputs(bias: bool, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """All tokens of the joined histories."""
    generator, tokens = torch.Generator().manual_seed(1), sum(OLD) + sum(NEW)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = {"q": normal(tokens, 2, 5), "k": normal(tokens, 2, 5), "v": normal(tokens, 2, 7)}
    if bias:
        inputs |= {"position_bias": normal(2 * MAX_LEN - 1), "time_bias": normal(24)}
        inputs["timestamps"] = torch.randint(0, 10**6, (tokens,), generator=generator)
    return inputs


def rows_of() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the old and of the new tokens among all."""
    flags = torch.cat([torch.arange(a + b) >= a for a, b in zip(OLD, NEW, strict=True)])
    return (~flags).nonzero().flatten(), flags.nonzero().flatten()


def whole_offsets() -> torch.Tensor:
    return offsets_of([a + b for a, b in zip(OLD, NEW, strict=True)])


def stepped(q, k, v, timestamps=None, targets=None, **others):
    old, new = rows_of()
    times = (None, None) if timestamps is None else (timestamps[old], timestamps[new])
    cache = KeyValues(k[old], v[old], offsets_of(OLD), times[0])
    limits = {} if targets is None else {"num_targets": torch.tensor(targets)}
    return hstu_attention_step(
        q[new], k[new], v[new], offsets_of(NEW), cache,
        max_len=MAX_LEN, scale=0.7, timestamps=times[1], **limits, **others,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("targets", [None, TARGETS], ids=["no targets", "targets"])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
def test_hstu_steps_are_rows_of_the_whole(backend, limits, targets, bias):
    inputs, new = make_inputs(bias), rows_of()[1]
    several = {} if targets is None else {"num_targets": torch.tensor(targets)}

    def whole(**arrays):
        return hstu_attention(**arrays, offsets=whole_offsets(), max_len=MAX_LEN, scale=0.7, **limits, **several)[new]

    expected = reference_results(whole, inputs)
    with use_backend(backend):
        got = outputs_and_gradients(lambda **x: stepped(**x, **limits, targets=targets)[0], inputs)
    assert_close(got, expected, TOLERANCES[torch.float32])


def test_hstu_steps_in_bf16_and_with_a_scale_a_token():
    inputs, new = make_inputs(True, torch.bfloat16), rows_of()[1]
    scale = torch.rand(len(new))
    with use_backend("reference"):
        wide = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        whole = hstu_attention(**wide, offsets=whole_offsets(), max_len=MAX_LEN, scale=0.7)[new]
    out, _ = stepped(**inputs, attn_scale=scale)
    expected = whole * (scale * MAX_LEN)[:, None, None]
    torch.testing.assert_close(out.double(), expected, rtol=3e-2, atol=3e-2 * float(expected.abs().max()))


def test_the_cache_has_what_is_no_target():
    inputs = make_inputs(True)
    before = {name: x.clone() for name, x in inputs.items()}
    _, cache = stepped(**inputs, targets=TARGETS)
    lengths = [a + b for a, b in zip(OLD, NEW, strict=True)]
    kept = torch.cat([torch.arange(n) < n - t for n, t in zip(lengths, TARGETS, strict=True)])
    assert torch.equal(cache.k, inputs["k"][kept]) and torch.equal(cache.v, inputs["v"][kept])
    assert torch.equal(cache.timestamps, inputs["timestamps"][kept])
    assert cache.offsets.diff().tolist() == [n - t for n, t in zip(lengths, TARGETS, strict=True)]
    assert all(torch.equal(inputs[name], x) for name, x in before.items())


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_causal_steps_are_rows_of_the_whole(backend):
    inputs, (old, new) = make_inputs(False), rows_of()

    def step(q, k, v):
        cache = KeyValues(k[old], v[old], offsets_of(OLD))
        out, cache = causal_attention_step(q[new], k[new], v[new], offsets_of(NEW), cache)
        return out, cache.k, cache.v

    expected = reference_results(lambda q, k, v: (causal_attention(q, k, v, whole_offsets())[new], k, v), inputs)
    with use_backend(backend):
        assert_close(outputs_and_gradients(step, inputs), expected, TOLERANCES[torch.float32])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cache": (1, 2)}, TypeError, "cache must be a KeyValues or None, not tuple"),
        ({"cache": KeyValues(torch.zeros(2, 2, 4), torch.zeros(2, 2, 3), offsets_of([2]))}, ValueError, r"cache\.k"),
        ({"cache": KeyValues(torch.zeros(2, 2, 3), torch.zeros(1, 2, 3), offsets_of([2]))}, ValueError, r"cache\.v"),
        ({"cache": KeyValues(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), offsets_of([1]))}, ValueError, "must end at"),
        (
            {"cache": KeyValues(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), offsets_of([1, 1]))},
            ValueError,
            "cache holds 2 histories, but offsets says that there are 1",
        ),
        (
            {"cache": KeyValues(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), offsets_of([2]), torch.tensor([1, 2]))},
            ValueError,
            "timestamps must be given for all appended tokens or for none",
        ),
        ({"max_len": 6}, ValueError, "max_len is 6, but a history has 7 tokens with the new ones"),
        ({"num_targets": torch.tensor([6])}, ValueError, r"num_targets\[0\] is 6"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    good = {name: torch.zeros(5, 2, 3) for name in "qkv"} | {"offsets": torch.tensor([0, 5]), "max_len": 7}
    good["cache"] = KeyValues(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), offsets_of([2]))
    with pytest.raises(error, match=message):
        hstu_attention_step(**(good | change))
