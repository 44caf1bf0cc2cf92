"""Rows of the operators that are no attention, at published sizes, bf16.

Work is that of bench/work.py: operations of rows bound by products, bytes of rows bound by memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.gpu.lengths import draw, offsets_of
from bench.gpu.problem import Inputs, Problem
from bench.row import Row, Setting
from uqabench import kernels
from uqabench.kernels.linear_cross_entropy.attention import by_attention

ITEMS, ITEM_WIDTH = 994_447, 128
ROW_TOKENS = 65_536
WIDTH, INNER = 512, 1_536


def _size(setting: Setting, full: int, small: int) -> int:
    return small if setting.is_small else full


def _random(setting: Setting, *shape: int) -> Tensor:
    return torch.randn(shape, device=setting.device).bfloat16()


def _normed(full_width: int, names: tuple[str, ...], setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    tokens, width = _size(setting, ROW_TOKENS, 24), _size(setting, full_width, 16)
    inputs: Inputs = {name: _random(setting, tokens, width) for name in names}
    inputs["weight"] = torch.ones(width, device=setting.device, dtype=torch.bfloat16)
    return inputs


def _beside_fp32(setting: Setting, seed: int) -> Inputs:
    inputs = _normed(WIDTH, ("x", "residual"), setting, seed)
    return {name: x if name == "x" else x.float() for name, x in inputs.items()}


def _rotated(setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    tokens, heads, width = (24, 2, 8) if setting.is_small else (ROW_TOKENS, 4, 128)
    lengths = draw("uniform", _size(setting, 512, 9), tokens)
    q, k = (_random(setting, tokens, heads, width) for _ in range(2))
    return {"q": q, "k": k, "offsets": offsets_of(lengths, setting.device)}


def _row_work(operator: str, full_width: int, setting: Setting) -> work.Passes:
    return work.row_wise(operator, _size(setting, ROW_TOKENS, 24), _size(setting, full_width, 16), element=2)


def _row_wise(
    operator: str,
    size: str,
    width: int,
    inputs: Callable[[Setting, int], Inputs],
    call: Callable[[Inputs], Any],
    leaves: tuple[str, ...],
    model: str | None = None,
) -> Problem:
    """An operator that passes over its rows once; `model` is its name in `work.ROW_WISE` (None: the same)."""
    model = model or operator
    return Problem(
        operator=operator,
        size=size,
        group="rows",
        unit="memory",
        inputs=inputs,
        call=call,
        leaves=leaves,
        work=partial(_row_work, model, width),
        tokens=lambda setting: _size(setting, ROW_TOKENS, 24),
        compiled=None if operator in ("rope",) else partial(_on_eager, call),
    )


def _on_eager(call: Callable[[Inputs], Any], inputs: Inputs) -> Any:
    with kernels.use_backend("eager"):
        return call(inputs)


def _row_problems() -> Iterator[Problem]:
    x = ("x", "weight")
    norms: dict[str, Callable[[Inputs], Any]] = {
        "rms_norm": lambda i: kernels.rms_norm(i["x"], i["weight"], 1e-5),
        "layer_norm": lambda i: kernels.layer_norm(i["x"], i["weight"], None, 1e-6),
    }
    for name, call in norms.items():
        yield _row_wise(name, f"width {WIDTH}", WIDTH, partial(_normed, WIDTH, ("x",)), call, x)
    added: Callable[[Inputs], Any] = lambda i: kernels.rms_norm(i["x"], i["weight"], 1e-5, i["residual"])  # noqa: E731
    inputs = partial(_normed, WIDTH, ("x", "residual"))
    yield _row_wise("rms_norm", f"+ residual, width {WIDTH}", WIDTH, inputs, added, ("x", "residual"), "rms_norm_sum")
    mixed = ("rms_norm", f"+ fp32 residual, width {WIDTH}", WIDTH, _beside_fp32)
    yield _row_wise(*mixed, added, ("x", "residual"), "rms_norm_sum_mixed")
    gated: Callable[[Inputs], Any] = lambda i: kernels.norm_gate(i["x"], i["gate"], 1e-6)  # noqa: E731
    inputs = partial(_normed, 2048, ("x", "gate"))
    yield _row_wise("norm_gate", "width 2048", 2048, inputs, gated, ("x", "gate"))
    swiglu: Callable[[Inputs], Any] = lambda i: kernels.swiglu(i["gate"], i["up"])  # noqa: E731
    inputs = partial(_normed, INNER, ("gate", "up"))
    yield _row_wise("swiglu", f"width {INNER}", INNER, inputs, swiglu, ("gate", "up"))
    joint: Callable[[Inputs], Any] = lambda i: kernels.swiglu(i["gate"])  # noqa: E731
    inputs = partial(_normed, 2 * INNER, ("gate",))
    yield _row_wise("swiglu", f"of one product, width {INNER}", INNER, inputs, joint, ("gate",))
    rope: Callable[[Inputs], Any] = lambda i: kernels.rope(i["q"], i["k"], i["offsets"])  # noqa: E731
    yield _row_wise("rope", "4 heads of 128", WIDTH, _rotated, rope, ("q", "k"))


def _catalogue_sizes(full_tokens: int, setting: Setting) -> tuple[int, int, int]:
    return (12, 301, 16) if setting.is_small else (full_tokens, ITEMS, ITEM_WIDTH)


def _catalogue(full_tokens: int, setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    tokens, items, width = _catalogue_sizes(full_tokens, setting)
    return {
        "hidden": _random(setting, tokens, width) * width**-0.5,
        "weight": _random(setting, items, width),
        "target": torch.randint(items, (tokens,), device=setting.device),
    }


def _score_work(full_tokens: int, setting: Setting) -> work.Passes:
    return work.linear_cross_entropy(*_catalogue_sizes(full_tokens, setting))


def _rank_work(full_tokens: int, setting: Setting) -> work.Passes:
    return work.linear_rank(*_catalogue_sizes(full_tokens, setting))


def _torch_loss(inputs: Inputs) -> Tensor:
    """torch's own cross entropy, which holds all logits: for as many tokens as that allows."""
    return F.cross_entropy((inputs["hidden"] @ inputs["weight"].T).float(), inputs["target"])


def _loss_by_attention(inputs: Inputs) -> Tensor:
    """Ours, with the softmax over the catalogue by torch's fused attention."""
    with by_attention():
        return kernels.linear_cross_entropy(inputs["hidden"], inputs["weight"], inputs["target"])


def _catalogue_problems() -> Iterator[Problem]:
    for tokens in (1_024, 8_192):
        yield Problem(
            operator="linear_cross_entropy",
            size=f"T={tokens}, V={ITEMS}",
            group="catalogue",
            unit="tensor",
            inputs=partial(_catalogue, tokens),
            call=lambda i: kernels.linear_cross_entropy(i["hidden"], i["weight"], i["target"]),
            leaves=("hidden", "weight"),
            work=partial(_score_work, tokens),
            tokens=partial(lambda tokens, setting: _size(setting, tokens, 12), tokens),
            baselines={"softmax by attention": _loss_by_attention}
            | ({"all logits": _torch_loss} if tokens <= 1_024 else {}),
        )
    yield Problem(
        operator="linear_rank",
        size=f"T=4096, V={ITEMS}",
        group="catalogue",
        unit="tensor",
        inputs=partial(_catalogue, 4_096),
        call=lambda i: kernels.linear_rank(i["hidden"], i["weight"], i["target"]).float(),
        leaves=("hidden", "weight"),
        work=partial(_rank_work, 4_096),
        is_forward_only=True,
        tokens=lambda setting: _size(setting, 4_096, 12),
        bound=1e-2,
    )
    yield Problem(
        operator="embedding_bag_mean",
        size="65,536 bags of about 8, width 64",
        group="catalogue",
        unit="memory",
        inputs=_bags,
        call=lambda i: kernels.embedding_bag_mean(i["table"], i["ids"], i["offsets"]),
        leaves=("table",),
        work=lambda setting: work.embedding_bag_mean(65_536, 8 * 65_536, 64, element=2),
        is_forward_only=True,
        tokens=lambda setting: _size(setting, 65_536, 12),
    )


def _bags(setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    bags, rows, width = (12, 31, 8) if setting.is_small else (65_536, 151_936, 64)
    lengths = draw("uniform", 15, bags * 8, seed=seed)
    return {
        "table": _random(setting, rows, width),
        "ids": torch.randint(rows, (bags * 8,), device=setting.device),
        "offsets": offsets_of(lengths, setting.device),
    }


def rows() -> Iterator[Row]:
    for problem in (*_row_problems(), *_catalogue_problems()):
        yield from problem.rows()
