"""Kernels whose tiles come by tensor descriptors, and by warps of their own, against the reference: on ragged sequences
and catalogues that fill no tile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from uqabench.kernels import hstu_attention, linear_cross_entropy, linear_silu, norm_gate

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, assert_same_bits, reference_results
from .conftest import DEVICE, gpu_results

triton = pytest.importorskip("triton")

from uqabench.kernels.hstu_attention import triton_backward as hstu_backward  # noqa: E402
from uqabench.kernels.hstu_attention import triton_forward as hstu_forward  # noqa: E402
from uqabench.kernels.hstu_attention.block import hstu_block  # noqa: E402
from uqabench.kernels.linear_cross_entropy import triton_backward as loss_backward  # noqa: E402
from uqabench.kernels.linear_cross_entropy import triton_forward as loss_forward  # noqa: E402
from uqabench.kernels.triton_tools import take_descriptors  # noqa: E402

BF16 = torch.bfloat16
LISTS = [
    (hstu_forward, "forward_configs"),
    (hstu_backward, "backward_configs"),
    (loss_forward, "configs"),
    (loss_backward, "configs"),
]
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and torch.cuda.get_device_capability()[0] != 9, reason="tensor descriptors are Hopper's here"
)


@pytest.fixture(params=["descriptors", "specialised"])
def loads(request, monkeypatch) -> Iterator[set[str]]:
    """Makes kernels choose from configurations of that kind where they have any; the modules that did."""
    chosen: set[str] = set()
    for module, name in LISTS:
        every = getattr(module, name)

        def listed(*sizes, module=module, every=every):
            offered = every(*sizes)
            found = [config for config in offered if config.kwargs.get("LOADS") == request.param]
            if found:
                chosen.add(module.__name__.split(".", 2)[2])
            return found or offered

        monkeypatch.setattr(module, name, listed)
        module._kernel.cache_clear()
    yield chosen
    for module, _ in LISTS:
        module._kernel.cache_clear()


def projections(tokens: int, width: int, heads: int) -> dict[str, torch.Tensor]:
    """q, k and v as HSTU's projection has them: side by side."""
    joined = torch.randn(tokens, 3, heads, width, generator=torch.Generator().manual_seed(tokens)).to(BF16)
    return dict(zip("qkv", joined.unbind(1), strict=True))


def attend(lengths):
    offsets = offsets_of(lengths)

    def call(q, **others):
        return hstu_attention(q, offsets=offsets.to(q.device), max_len=140, scale=0.2, **others)

    return call


@pytest.mark.parametrize(("lengths", "width"), [([70, 0, 130, 1, 128], 128), ([40, 129], 256)], ids=str)
def test_hstu_attention(loads, lengths, width):
    call, inputs = attend(lengths), projections(sum(lengths), width, heads=2 if width == 128 else 1)
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), TOLERANCES[BF16])
    assert "hstu_attention.triton_forward" in loads


def test_hstu_attention_with_tables(loads):
    lengths = [129, 3]
    generator = torch.Generator().manual_seed(0)
    tables = {
        "position_bias": torch.randn(279, generator=generator).to(BF16),
        "time_bias": torch.randn(9, generator=generator).to(BF16),
        "timestamps": torch.randint(0, 60, (132,), generator=generator).cumsum(0),
    }
    call, inputs = attend(lengths), projections(132, 128, heads=1) | tables
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), TOLERANCES[BF16])


def test_nan_stays_in_its_sequence(loads):
    lengths = [5, 100, 30]
    call, inputs = attend(lengths), projections(135, 128, heads=1)
    others = torch.tensor([True] * 5 + [False] * 100 + [True] * 30)
    clean = gpu_results("triton", call, inputs)
    assert_same_bits(gpu_results("triton", call, inputs), clean)
    poisoned = gpu_results(
        "triton", call, {n: torch.where(others[:, None, None], x, torch.nan) for n, x in inputs.items()}
    )
    for name in clean:
        assert torch.equal(poisoned[name][others], clean[name][others])
        assert poisoned[name][~others].isnan().all()


def test_hstu_block(loads):
    """Its backward pass writes the gradients of what SiLU was applied to."""
    lengths, width = [130, 0, 9], 128
    generator = torch.Generator().manual_seed(1)
    inputs = {"x": torch.randn(139, 24, generator=generator), "weight": torch.randn(4 * width, 24, generator=generator)}
    inputs = {name: (x / 2).to(BF16) for name, x in inputs.items()}

    def in_one(x, weight):
        sizes = {"heads": 1, "qk_dim": width, "v_dim": width, "max_len": 130, "eps": 1e-6, "dropout_p": 0.0}
        return hstu_block(x, weight, offsets_of(lengths).to(x.device), **sizes, seed=torch.tensor(0).to(x.device))

    def one_after_the_other(x, weight):
        u, v, q, k = (part[:, None] for part in linear_silu(x, weight).split(width, dim=1))
        attended = hstu_attention(q, k, v, offsets_of(lengths), max_len=130)
        return norm_gate(attended.flatten(1), u.flatten(1), 1e-6)

    expected = reference_results(one_after_the_other, inputs)
    assert_close(gpu_results("triton", in_one, inputs), expected, TOLERANCES[BF16])
    assert "hstu_attention.triton_backward" in loads


@pytest.mark.parametrize(("tokens", "items", "width"), [(129, 300, 128), (3, 127, 128), (40, 70, 512)])
def test_linear_cross_entropy(loads, tokens, items, width):
    generator = torch.Generator().manual_seed(items)
    inputs = {"hidden": torch.randn(tokens, width, generator=generator) / 4}
    inputs["weight"] = torch.randn(items, width, generator=generator)
    inputs = {name: x.to(BF16) for name, x in inputs.items()}
    target = torch.randint(0, items, (tokens,), generator=generator)
    target[::3] = -100

    def call(**arrays):
        wanted = target.to(arrays["hidden"].device)
        return linear_cross_entropy(**arrays, target=wanted), linear_cross_entropy(
            **arrays, target=wanted, reduction="none"
        )

    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), TOLERANCES[BF16])
    if width == 128:
        assert {"linear_cross_entropy.triton_forward", "linear_cross_entropy.triton_backward"} <= loads


def test_what_tensor_descriptors_take():
    x = torch.zeros(6, 4, 24, dtype=BF16, device=DEVICE)
    assert take_descriptors(x, x[:, 1:3, 8:16])
    assert not take_descriptors(x, x[:, :, 4:12])  # begins between two boundaries of 16 bytes
    assert not take_descriptors(torch.zeros(6, 20, dtype=BF16, device=DEVICE))  # and so does every other row
    assert not take_descriptors(x.transpose(1, 2))


@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_other_cards_are_offered_pointers_only(width):
    for block, has_descriptors in ((64, True), (128, False)):
        for is_biased in (False, True):
            sizes = (block, width, BF16)
            listed = hstu_forward.forward_configs(*sizes, is_biased, has_descriptors)
            listed += hstu_backward.backward_configs(*sizes, has_descriptors, is_biased, True)
            assert not any("LOADS" in config.kwargs for config in listed)
