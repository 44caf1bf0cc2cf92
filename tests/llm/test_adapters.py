import math

import pytest
import torch

from uqabench.errors import InputError
from uqabench.llm.adapters import (
    MeanPoolAdapter,
    QFormerAdapter,
    build_adapter,
    embedding_rms,
    mean_pool,
)


def packed(lengths, width, *, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    return torch.randn(int(offsets[-1]), width, generator=generator) * scale, offsets


def q_former(width=32, llm_width=48, **settings):
    torch.manual_seed(0)
    return QFormerAdapter(width, llm_width, **{"n_queries": 4, "heads": 4, **settings})


def test_mean_pool_is_the_mean_of_each_sequence_and_zero_for_an_empty_one():
    states, offsets = packed([3, 0, 1, 5], 7)
    pooled = mean_pool(states, offsets)
    expected = [states[a:b].mean(0) if b > a else torch.zeros(7) for a, b in offsets.unfold(0, 2, 1).tolist()]
    torch.testing.assert_close(pooled, torch.stack(expected))


def test_mean_pool_sums_bfloat16_in_float32():
    states = torch.ones(4096, 2, dtype=torch.bfloat16)  # a bfloat16 sum would stop growing at 256
    pooled = mean_pool(states, torch.tensor([0, 4096]))
    assert pooled.dtype == torch.bfloat16
    assert pooled.tolist() == [[1.0, 1.0]]


def test_pooling_before_the_linear_map_equals_the_papers_order():
    adapter = MeanPoolAdapter(8, 12)
    torch.nn.init.normal_(adapter.linear.bias)
    states, offsets = packed([3, 9, 1], 8)
    mapped_first = mean_pool(adapter.linear(states), offsets)
    soft = adapter(mean_pool(states, offsets))
    assert soft.shape == (3, 1, 12)
    torch.testing.assert_close(soft[:, 0], mapped_first)


def test_mean_pool_tokens_start_at_the_size_of_the_language_models():
    torch.manual_seed(0)
    adapter = MeanPoolAdapter(64, 512, token_rms=0.031)
    soft = adapter(torch.randn(50, 64)).detach()
    assert float(soft.square().mean().sqrt()) == pytest.approx(0.031, rel=0.1)
    empty = adapter(mean_pool(torch.zeros(0, 64), torch.tensor([0, 0]))).detach()
    assert float(empty.square().mean().sqrt()) > 0.5 * 0.031  # a zero token has no finite gradient in some models


def padded_q_former(adapter, states):
    """The Q-Former for one sequence, a head and a query at a time, from the docstring's formulas."""

    def attend(module, x, memory):
        size = x.shape[-1] // module.heads
        q, k, v = module.query(x), module.key(memory), module.value(memory)
        out = torch.zeros_like(q)
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            qh = q[:, part] / q[:, part].square().mean(-1, keepdim=True).sqrt()
            kh = k[:, part] / k[:, part].square().mean(-1, keepdim=True).sqrt()
            for i in range(len(x)):
                weights = torch.softmax((kh @ qh[i]) / math.sqrt(size), dim=0)
                out[i, part] = weights @ v[:, part]
        return module.out(out)

    memory = adapter.input_norm(states) if len(states) else adapter.empty[None]
    x = adapter.queries
    for layer in adapter.layers:
        x = x + attend(layer.cross, layer.cross_norm(x), memory)
        x = x + attend(layer.self_attention, layer.self_norm(x), layer.self_norm(x))
        x = x + layer.down(torch.nn.functional.gelu(layer.up(layer.ffn_norm(x))))
    y = adapter.output(x)
    return y / y.square().mean(-1, keepdim=True).sqrt() * adapter.log_scale.exp()


@pytest.mark.parametrize("lengths", [[5], [0], [0, 0], [7, 0, 1, 12], [1, 1]])
def test_q_former_equals_one_sequence_at_a_time(lengths):
    adapter = q_former().double()
    states, offsets = packed(lengths, 32)
    states = states.double()
    soft = adapter(states, offsets)
    assert soft.shape == (len(lengths), 4, 48)
    for i, (begin, end) in enumerate(offsets.unfold(0, 2, 1).tolist()):
        # unit RMS has an epsilon of 1e-6 that the formulas leave out, and is taken in float32
        torch.testing.assert_close(soft[i], padded_q_former(adapter, states[begin:end]), rtol=1e-4, atol=1e-6)


def test_q_former_neighbours_do_not_matter():
    adapter = q_former()
    states, offsets = packed([6, 11, 0], 32)
    together = adapter(states, offsets)
    changed = states.clone()
    changed[6:] *= -3
    torch.testing.assert_close(adapter(changed, offsets)[0], together[0])
    alone = adapter(states[:6], offsets[:2])
    torch.testing.assert_close(alone[0], together[0], rtol=1e-4, atol=1e-6)


def test_q_former_empty_batch():
    assert q_former()(torch.zeros(0, 32), torch.zeros(1, dtype=torch.int64)).shape == (0, 4, 48)


def test_q_former_tokens_start_at_the_size_of_the_language_models():
    table = torch.randn(100, 48) * 0.031
    adapter = q_former(token_rms=embedding_rms(table))
    for scale in (1e-4, 1.0, 1e5):
        states, offsets = packed([20, 3, 0], 32, scale=scale)
        rms = adapter(states, offsets).square().mean(-1).sqrt()
        torch.testing.assert_close(rms, torch.full_like(rms, 0.031), rtol=0.05, atol=0)


def test_q_former_shows_the_user_from_the_start():
    adapter = QFormerAdapter(128, 256)
    states, offsets = packed([20] * 8, 128)
    states += torch.randn(8, 128).repeat_interleave(20, dim=0)
    soft = adapter(states, offsets).detach()
    assert soft.var(0).sum() > 0.5 * soft.square().mean(0).sum()  # most of the variance is across users
    assert soft.var(1).mean() > 0.05 * soft.square().mean()  # and the queries are not copies of each other


@pytest.mark.parametrize("lr", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_q_former_trains_without_nan_from_small_to_large_learning_rates(lr, scale):
    """Recover a user's hidden vector from noisy states of hard scale: the loss stays finite and falls."""
    width, users = 16, 8
    generator = torch.Generator().manual_seed(1)
    adapter = q_former(width, 24, heads=2)
    read_out = torch.randn(24, width, generator=generator) / 0.02 / math.sqrt(24)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=lr)
    losses = []
    for _ in range(200):
        hidden = torch.randn(users, width, generator=generator)
        lengths = torch.randint(0, 30, (users,), generator=generator)
        lengths[0] = 0
        states = hidden.repeat_interleave(lengths, dim=0)
        states = (states + torch.randn(states.shape, generator=generator)) * scale
        states[::7] *= 100  # outliers
        offsets = torch.tensor([0, *lengths.cumsum(0).tolist()])
        soft = adapter(states, offsets)
        loss = (soft.mean(1) @ read_out - hidden)[lengths > 0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.5, error_if_nonfinite=True)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    first, last = sum(losses[:50]), sum(losses[-50:])
    assert last < (0.97 if lr == 1e-5 else 0.8) * first


def test_q_former_in_bfloat16():
    adapter = q_former()
    states, offsets = packed([9, 0, 4], 32)
    exact = adapter(states, offsets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = adapter(states, offsets)
    half = adapter.to(torch.bfloat16)(states.bfloat16(), offsets)
    assert half.dtype == torch.bfloat16
    for other in (mixed, half):
        assert (other.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    "adapter",
    [
        MeanPoolAdapter(8, 12, token_rms=0.5),
        QFormerAdapter(8, 12),
        QFormerAdapter(8, 12, n_queries=3, layers=1, heads=2, token_rms=0.5),
    ],
    ids=["mean", "default", "q-former"],
)
def test_config_makes_the_same_module_again(adapter):
    again = build_adapter(adapter.to_config())
    assert type(again) is type(adapter)
    assert again.to_config() == adapter.to_config()
    assert again.n_tokens == adapter.n_tokens
    again.load_state_dict(adapter.state_dict())
    states, offsets = packed([4, 2], 8)
    arguments = (mean_pool(states, offsets),) if isinstance(adapter, MeanPoolAdapter) else (states, offsets)
    assert torch.equal(again(*arguments), adapter(*arguments))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "max-pool"}, "no adapter 'max-pool': choose one of mean-pool, q-former"),
        ({"name": "mean-pool", "width": 8}, "lacks 'llm_width'"),
        ({"name": "mean-pool", "width": 8, "llm_width": 4, "heads": 2}, "no setting 'heads'"),
        ({"name": "mean-pool", "width": 0, "llm_width": 4}, "width must be a positive whole number, not 0"),
        ({"name": "q-former", "width": 10, "llm_width": 4, "heads": 4}, "width 10 is not a multiple of 4 heads"),
        ({"name": "q-former", "width": 8, "llm_width": 4, "token_rms": 0.0}, "token_rms must be a positive number"),
    ],
)
def test_bad_config_is_named(config, message):
    with pytest.raises(InputError, match=message):
        build_adapter(config)
