from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from uqabench.kernels import info_nce, linear_cross_entropy, use_backend
from uqabench.kernels.linear_cross_entropy import attention

from ..conftest import TOLERANCES, assert_close, reference_results
from .conftest import DEVICE, gpu_results

triton_catalogue = pytest.importorskip("uqabench.kernels.triton_catalogue")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def make_inputs(tokens: int, items: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens + items)
    inputs = {
        "hidden": torch.randn(tokens, width, generator=generator) / 2,
        "weight": torch.randn(items, width, generator=generator),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def make_target(tokens: int, items: int, ignored: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens * items)
    target = torch.randint(0, items, (tokens,), generator=generator)
    return target.masked_fill(torch.rand(tokens, generator=generator) < ignored, -100)


def check(tokens: int, items: int, width: int, dtype: torch.dtype, ignored: float = 0.3) -> None:
    inputs, target = make_inputs(tokens, items, width, dtype), make_target(tokens, items, ignored)

    def call(**arrays: torch.Tensor):
        wanted = target.to(arrays["hidden"].device)
        loss = linear_cross_entropy(**arrays, target=wanted)
        return loss, linear_cross_entropy(**arrays, target=wanted, reduction="none")

    expected = reference_results(call, inputs)
    assert_close(gpu_results("triton", call, inputs), expected, TOLERANCES[dtype])


@DTYPES
@pytest.mark.parametrize(("tokens", "items"), [(0, 5), (1, 1), (129, 128), (3, 300)])
def test_around_the_sizes_of_tiles(tokens, items, dtype):
    check(tokens, items, 19, dtype)


@pytest.mark.parametrize("width", [16, 300])
def test_widths(width):
    check(30, 150, width, torch.bfloat16)


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("tokens", [255, 640])
def test_several_tiles_of_tokens_and_items(tokens, dtype):
    check(tokens, 1300, 64, dtype)


def test_wider_vectors_than_the_kernels_take():
    check(3, 5, 520, torch.bfloat16)
    check(3, 5, 130, torch.float32)


@pytest.mark.parametrize("ignored", [0.0, 1.0])
def test_all_tokens_count_or_none(ignored):
    check(20, 40, 8, torch.float32, ignored)


@pytest.mark.parametrize("only", ["hidden", "weight"])
def test_one_input_frozen(only):
    inputs, target = make_inputs(20, 40, 8), make_target(20, 40)
    results = []
    for backend in ("reference", "triton"):
        leaves = {name: x.to(DEVICE).requires_grad_(name == only) for name, x in inputs.items()}
        with use_backend(backend):
            loss = linear_cross_entropy(**leaves, target=target.to(DEVICE))
            results.append(torch.autograd.grad(loss, leaves[only])[0].cpu())
    torch.testing.assert_close(*results)


def test_nan_of_a_token_that_does_not_count_stays_out():
    inputs, target = make_inputs(9, 40, 8), make_target(9, 40)
    target[3] = -100
    inputs["hidden"][3] = torch.nan
    leaves = [x.to(DEVICE).requires_grad_() for x in inputs.values()]
    with use_backend("triton"):
        loss = linear_cross_entropy(*leaves, target.to(DEVICE))
    for x in (loss, *torch.autograd.grad(loss, leaves)):
        assert x.isfinite().all()


def test_nan_of_a_token_spoils_no_other_tokens_loss():
    inputs, target = make_inputs(9, 40, 8), make_target(9, 40, 0.0)
    inputs["hidden"][3] = torch.nan
    with use_backend("triton"):
        losses = linear_cross_entropy(*(x.to(DEVICE) for x in inputs.values()), target.to(DEVICE), reduction="none")
    assert losses.isnan().tolist() == [i == 3 for i in range(9)]


def test_logits_far_beyond_the_range_of_exp():
    """Targets 2,000 nats below the best item, and 2,000 above all others."""
    hidden = torch.tensor([[2000.0], [2000.0]], device=DEVICE, requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]], device=DEVICE, requires_grad=True)
    target = torch.tensor([1, 0], device=DEVICE)
    with use_backend("triton"):
        losses = linear_cross_entropy(hidden, weight, target, reduction="none")
        linear_cross_entropy(hidden, weight, target).backward()
    assert losses.tolist() == [2000.0, 0.0]
    assert hidden.grad.flatten().tolist() == [0.5, 0.0]
    assert weight.grad.flatten().tolist() == [1000.0, -1000.0, 0.0]


def test_strided_rows_and_the_same_bits_again():
    inputs, target = make_inputs(20, 90, 24, torch.bfloat16), make_target(20, 90).to(DEVICE)
    results = []
    for copy in (False, True):
        leaves = [x.to(DEVICE)[:, 8:21].detach() for x in inputs.values()]
        leaves = [(x.contiguous() if copy else x).requires_grad_() for x in leaves]
        with use_backend("triton"):
            loss = linear_cross_entropy(*leaves, target)
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_registered_operators_pass_torchs_own_checks():
    inputs, target = [x.to(DEVICE) for x in make_inputs(5, 9, 4).values()], make_target(5, 9).to(DEVICE)
    leaves = [x.clone().requires_grad_() for x in inputs]
    tests = ("test_schema", "test_faketensor")
    ops, named = torch.ops.uqabench, ("triton",)
    mean = (target, None, None, -100, True, *named)
    torch.library.opcheck(ops.linear_cross_entropy_triton, (*leaves, *mean), test_utils=tests)
    torch.library.opcheck(ops.linear_cross_entropy_losses, (*inputs, target, -100, *named), test_utils=tests)
    _, _, share, *kept = ops.linear_cross_entropy_triton(*inputs, *mean)
    arguments = (share, *kept, inputs[1], None, None, *named)
    torch.library.opcheck(ops.linear_cross_entropy_backward, arguments, test_utils=tests)


@DTYPES
@pytest.mark.parametrize(("tokens", "has_log_q"), [(1, True), (20, False), (130, True)])
def test_info_nce(tokens, has_log_q, dtype):
    generator = torch.Generator().manual_seed(tokens)
    inputs = {name: torch.randn(tokens, 19, generator=generator).to(dtype) / 2 for name in ("hidden", "positives")}
    inputs["ids"] = torch.randint(0, tokens, (tokens,), generator=generator)
    if has_log_q:
        inputs["log_q"] = (torch.rand(tokens, generator=generator) + 0.1).log()

    def call(log_q: torch.Tensor | None = None, **arrays: torch.Tensor):
        return info_nce(**arrays, log_q=log_q, temperature=0.5)

    expected = reference_results(call, inputs)
    assert_close(gpu_results("triton", call, inputs), expected, TOLERANCES[dtype])


def test_info_nce_when_all_candidates_but_its_own_are_left_out():
    inputs = [x.to(DEVICE).requires_grad_() for x in make_inputs(70, 70, 8).values()]
    with use_backend("triton"):
        loss = info_nce(*inputs, torch.full((70,), 3, device=DEVICE), None, 0.5)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize(("items", "row_tiles"), [(1, 1), (1000, 1), (994_447, 8), (994_447, 64), (5000, 64)])
def test_slices_cover_the_catalogue_and_none_is_empty(monkeypatch, items, row_tiles):
    monkeypatch.setattr(triton_catalogue, "programs", lambda x: 132)
    count, length = triton_catalogue.slices(items, 128, row_tiles, torch.empty(0))
    assert length % 128 == 0 and (count - 1) * length < items <= count * length
    if items == 994_447:
        assert count * row_tiles / 132 / -(-count * row_tiles // 132) >= 0.94


def attend_by_flex_attention(queries, items, query_bounds, item_bounds, most_queries, most_items):
    """What `attention.attend` asks of varlen_attn, which CPUs have not, of another attention of torch's."""
    parts = []
    for at in range(len(query_bounds) - 1):
        own = queries[query_bounds[at] : query_bounds[at + 1]][None, None]
        keys = items.detach()[item_bounds[at] : item_bounds[at + 1]][None, None]
        assert own.shape[2] <= most_queries and keys.shape[2] <= most_items
        out, aux = flex_attention(own, keys, keys, scale=1.0, return_aux=AuxRequest(lse=True))
        parts.append((out[0, 0], aux.lse[0, 0]))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(("tokens", "items", "width"), [(129, 300, 24), (5, 127, 128)])
def test_the_softmax_by_attention_is_the_loss_s(monkeypatch, tokens, items, width):
    monkeypatch.setattr(attention, "attend", attend_by_flex_attention)
    with attention.by_attention():
        check(tokens, items, width, torch.bfloat16)
        assert attention.takes(torch.zeros(1, 64, dtype=torch.bfloat16), None, None)
    assert not attention.takes(torch.zeros(1, 64, dtype=torch.bfloat16), None, None)


def test_torch_s_attention_takes_the_call_and_returns_the_logsumexp():
    queries, items = (torch.empty(n, 64, dtype=torch.bfloat16, device="meta") for n in (512, 900))
    bounds = torch.empty(3, dtype=torch.int32, device="meta")
    out, lse = attention.attend(queries, items, bounds, bounds, 256, 512)
    assert out.shape == (512, 64) and lse.shape == (512,) and lse.dtype == torch.float32
