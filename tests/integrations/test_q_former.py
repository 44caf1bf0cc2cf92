"""The Q-Former against one sequence, head and query at a time; how it starts, and that it trains at all rates."""

import math
from dataclasses import dataclass

import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations import QFormerAdapter, TrainingHistories, find_integration, window_means
from uqabench.integrations.q_former import query_windows
from uqabench.integrations.segments import WINDOWS


def packed(lengths, width, *, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    return torch.randn(int(offsets[-1]), width, generator=generator) * scale, offsets


def q_former(width=32, llm_width=48, token_rms=0.02, **settings):
    torch.manual_seed(0)
    return QFormerAdapter(width, llm_width, token_rms, **{"n_queries": 4, "heads": 4, **settings})


def padded_q_former(adapter, states):
    """The Q-Former for one sequence, a head and a query at a time, from the docstring's formulas."""

    def attend(module, x, memory, gain=1.0, bias=None):
        size = x.shape[-1] // module.heads
        q, k, v = module.query(x), module.key(memory), module.value(memory)
        out = torch.zeros_like(q)
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            qh = q[:, part] / q[:, part].square().mean(-1, keepdim=True).sqrt()
            kh = k[:, part] / k[:, part].square().mean(-1, keepdim=True).sqrt()
            for i in range(len(x)):
                logits = gain * (kh @ qh[i]) / math.sqrt(size)
                weights = torch.softmax(logits if bias is None else logits + bias[i], dim=0)
                out[i, part] = weights @ v[:, part]
        return module.out(out)

    memory = adapter.input_norm(states) if len(states) else adapter.empty[None]
    distances = range(len(memory) - 1, -1, -1)
    columns = [min(math.ceil(math.log2(distance + 1)), 7) for distance in distances]
    x = adapter.queries
    for layer in adapter.layers:
        bias = layer.recency[:, columns]
        x = x + attend(layer.cross, layer.cross_norm(x), memory, layer.content, bias)
        x = x + attend(layer.self_attention, layer.self_norm(x), layer.self_norm(x))
        x = x + layer.down(torch.nn.functional.gelu(layer.up(layer.ffn_norm(x))))
    tokens = []
    for i, y in enumerate(x):
        rows = slice(i * adapter.output.llm_width, (i + 1) * adapter.output.llm_width)
        token = adapter.output.linear.weight[rows] @ y + adapter.output.linear.bias[rows]
        rms = token.square().mean().sqrt()
        tokens.append(token * (rms.clamp(0.25, 4.0) / rms) * adapter.log_scale[i].exp())
    return torch.stack(tokens)


@pytest.mark.parametrize("lengths", [[5], [0], [0, 0], [7, 0, 1, 12], [1, 1], [150, 2, 64, 65]])
def test_q_former_equals_one_sequence_at_a_time(lengths):
    adapter = q_former().double()
    with torch.no_grad():
        for layer in adapter.layers:
            layer.content.fill_(0.7)
            torch.nn.init.normal_(layer.recency)
        adapter.output.linear.weight[:48] *= 20  # one token above the largest size, one below the smallest
        adapter.output.linear.weight[48:96] *= 0.01
    states, offsets = packed(lengths, 32)
    states = states.double()
    soft = adapter(states, offsets)
    assert soft.shape == (len(lengths), 4, 48)
    for i, (begin, end) in enumerate(offsets.unfold(0, 2, 1).tolist()):
        # a head's unit RMS has an epsilon of 1e-6 that the formulas leave out, and is taken in float32
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
    adapter = q_former(token_rms=float(table.square().mean().sqrt()))
    for scale in (1e-4, 1.0, 1e5):
        states, offsets = packed([20, 3, 0], 32, scale=scale)
        rms = adapter(states, offsets).detach().square().mean(-1).sqrt()
        assert 0.25 * 0.031 < float(rms.min()) and float(rms.max()) < 2 * 0.031
        assert 0.5 * 0.031 < float(rms.mean())


def test_q_former_shows_the_user_from_the_start():
    adapter = QFormerAdapter(128, 256, 0.02)
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
    ("settings", "message"),
    [
        ({"width": 0}, "width must be a positive whole number, not 0"),
        ({"width": 10}, "width 10 is not a multiple of 4 heads"),
        ({"token_rms": 0.0}, "token_rms must be a positive number"),
        ({"n_queries": 2.0}, "n_queries must be a positive whole number, not 2.0"),
    ],
)
def test_bad_sizes_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        q_former(**settings)


@dataclass(frozen=True)
class Settings:
    n_queries: int


def started(n_queries, lengths, width=16, llm_width=6):
    """A Q-Former and `segments` that start from the same histories, and the tokens of both."""
    states, offsets = packed(lengths, width)
    read_out = torch.randn(width, llm_width, generator=torch.Generator().manual_seed(1))

    def vectors(window):
        return window_means(window)(states, offsets)[:, 0] @ read_out

    def inputs(rows):
        chosen = [states[offsets[i] : offsets[i + 1]] for i in rows.tolist()]
        return torch.cat(chosen), torch.tensor([0, *torch.tensor([len(x) for x in chosen]).cumsum(0).tolist()])

    torch.manual_seed(0)
    q_former, segments = find_integration("q-former"), find_integration("segments")
    pooled = segments.pooling(states, offsets)
    users = torch.arange(len(lengths))
    reader = q_former.build(width, llm_width, 0.05, Settings(n_queries))
    linear = segments.build(width, llm_width, 0.05, Settings(n_queries))
    metrics = q_former.initialise(reader, TrainingHistories(users, inputs, vectors))
    segments.initialise(linear, TrainingHistories(users, lambda rows: (pooled[rows],), vectors))
    return reader, metrics, reader(states, offsets).detach(), linear(pooled).detach()


LENGTHS = [1, 2, 3, 5, 8, 9, 20, 33, 64, 65, 100] * 6


@pytest.mark.parametrize("n_queries", [1, 2, 5, 8, 11])
def test_q_former_starts_at_the_tokens_of_segments(n_queries):
    """Nearly: a Q-Former normalises each state before it averages them."""
    windows = query_windows(n_queries)
    assert windows[0] is None and len(windows) == n_queries
    assert windows[-1] == (1 if n_queries > 1 else None)
    _, metrics, tokens, expected = started(n_queries, LENGTHS)
    assert all(value > 0.8 for name, value in metrics.items() if "held_out" in name)
    for query, window in enumerate(windows):
        target = expected[:, WINDOWS.index(window)]
        gap = (tokens[:, query] - target).square().sum() / target.square().sum()
        assert float(gap) < 0.1


def test_q_former_learns_all_its_parts_from_there():
    """Silent halves must not stay silent: after a step every parameter has a gradient."""
    reader, _, tokens, _ = started(8, LENGTHS)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-3)
    states, offsets = packed([7, 0, 30], 16, seed=3)
    for _ in range(3):
        optimizer.zero_grad()
        reader(states, offsets).pow(3).sum().backward()
        optimizer.step()
    dead = [name for name, p in reader.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert dead == []
