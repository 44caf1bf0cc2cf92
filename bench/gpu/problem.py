"""From one operator call to its rows: forward, and forward and backward, against other ways of the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu.clock import poison
from bench.row import Call, Floor, Made, Row, Setting
from bench.work import Least, Passes
from uqabench.kernels import backend, use_backend

ROTATED = 192 << 20
"""Bytes of inputs that take turns: several times the 50 MB of an H100's L2."""
MOST_SETS = 12

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One operator at one size.

    inputs: makes the call's arguments from a seed; floating tensors are differentiated if their name is in `leaves`.
    work: least work of a call's passes. is_forward_only: no backward pass is measured.
    baselines: other functions of the same inputs. compiled: one for torch.compile to compile, or None.
    """

    operator: str
    size: str
    group: str
    unit: str
    inputs: Callable[[Setting, int], Inputs]
    call: Callable[[Inputs], Any]
    leaves: tuple[str, ...]
    work: Callable[[Setting], Passes]
    tokens: Callable[[Setting], int]
    baselines: Mapping[str, Callable[[Inputs], Any]] = field(default_factory=dict)
    compiled: Callable[[Inputs], Any] | None = None
    has_eager: bool = True
    bound: float = 0.05
    is_forward_only: bool = False

    def rows(self) -> list[Row]:
        """The row of the forward pass and, where there is one, that of both passes."""
        found = [self._row("fwd", lambda passes: passes.forward)]
        if not self.is_forward_only:
            found.append(self._row("fwd+bwd", lambda passes: passes.both))
        return found

    def _row(self, direction: str, of: Callable[[Passes], Least]) -> Row:
        return Row(
            f"{self.operator} {self.size} {direction}",
            self.group,
            lambda setting: Floor(of(self.work(setting))),
            partial(_make, self, direction == "fwd+bwd"),
            self.unit,
            self.tokens,
            bound=self.bound,
        )


@dataclass
class Example:
    """One set of inputs, and the gradients that its results are given: made at the first call, so that later ones
    spend no time on them."""

    inputs: Inputs
    cotangents: list[Tensor] = field(default_factory=list)

    def run(self, function: Callable[[Inputs], Any], leaves: tuple[str, ...], is_both: bool) -> list[Tensor]:
        """Results of `function`, and with `is_both` the gradients to `leaves` behind them."""
        if not is_both:
            with torch.no_grad():
                return _as_list(function(self.inputs))
        outputs = _as_list(function(self.inputs))
        if not self.cotangents:
            self.cotangents = [torch.randn_like(x) for x in outputs]
        return outputs + list(torch.autograd.grad(outputs, [self.inputs[n] for n in leaves], self.cotangents))

    def wide(self) -> Example:
        """The same in fp32."""
        wide = {name: _wide(x) for name, x in self.inputs.items()}
        return Example(wide, [_wide(x) for x in self.cotangents])


def _compiled(function: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    torch._dynamo.reset()  # what earlier rows compiled would count towards the limit of recompilations
    return torch.compile(function)


def _wide(x: Any) -> Any:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return x
    return x.detach().float().requires_grad_(x.requires_grad)


def _make(problem: Problem, is_both: bool, setting: Setting) -> Made:
    first = _leaves(problem, problem.inputs(setting, 0), is_both)
    size = sum(x.nbytes for x in first.values() if isinstance(x, Tensor))
    count = 2 if setting.is_small else min(MOST_SETS, max(2, -(-ROTATED // max(1, size))))
    others = (_leaves(problem, problem.inputs(setting, seed), is_both) for seed in range(1, count))
    sets = [Example(inputs) for inputs in (first, *others)]

    def calls(function: Callable[[Inputs], Any]) -> list[Call]:
        return [partial(example.run, function, problem.leaves, is_both) for example in sets]

    def eager() -> list[Call]:
        return [partial(_on_eager, call) for call in calls(problem.call)]

    baselines: dict[str, Callable[[], list[Call]]] = {"eager": eager} if problem.has_eager else {}
    baselines |= {name: partial(calls, function) for name, function in problem.baselines.items()}
    if problem.compiled is not None:
        baselines["torch.compile"] = lambda: calls(_compiled(problem.compiled))
    dtype = next((x.dtype for x in first.values() if isinstance(x, Tensor) and x.is_floating_point()), None)
    return Made(
        ours=calls(problem.call),
        baselines=baselines,
        check=partial(_error, problem, is_both, sets[0], setting),
        backend=backend.choose(problem.operator, setting.device, dtype),
        compared=partial(_compared, problem, is_both, sets[0], setting),
    )


def _leaves(problem: Problem, inputs: Inputs, is_both: bool) -> Inputs:
    if is_both:
        for name in problem.leaves:
            inputs[name] = inputs[name].detach().requires_grad_()
    return inputs


def _on_eager(call: Callable[[], Any]) -> Any:
    with use_backend("eager"):
        return call()


def _as_list(returned: Any) -> list[Tensor]:
    return list(returned) if isinstance(returned, (tuple, list)) else [returned]


def _error(problem: Problem, is_both: bool, example: Example, setting: Setting) -> float:
    """Largest error over outputs and gradients, each relative to its largest value; infinite for a NaN."""
    worst = 0.0
    for ours, theirs in zip(*_results(problem, is_both, example, setting), strict=True):
        if not bool(ours.isfinite().all()):
            return float("inf")
        if theirs.numel():
            error, scale = (ours - theirs).abs().max(), theirs.abs().max()
            worst = max(worst, float(error) / max(float(scale), 1e-30))
    return worst


def _compared(
    problem: Problem, is_both: bool, example: Example, setting: Setting
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(name, ours, plain torch's in the same dtype, in fp32) of every output, and with `is_both` of every gradient."""
    gradients = [f"gradient of {name}" for name in problem.leaves] if is_both else []
    ours, exact = _results(problem, is_both, example, setting)
    plain = _on_eager(partial(example.run, problem.call, problem.leaves, is_both))
    names = [f"output {i}" for i in range(len(ours) - len(gradients))] + gradients
    yield from zip(names, ours, plain, exact, strict=True)


def _results(problem: Problem, is_both: bool, example: Example, setting: Setting) -> tuple[list[Tensor], list[Tensor]]:
    """Ours and fp32 plain torch's, outputs and gradients, as fp32."""
    poison(setting.device, 256 << 20)
    found = [x.detach().float() for x in example.run(problem.call, problem.leaves, is_both)]
    expected = _on_eager(partial(example.wide().run, problem.call, problem.leaves, is_both))
    return found, [x.detach().float() for x in expected]
