"""One installation's side of `bench.against`: training steps, each when it is told to.

It is run by path with the interpreter of another installation, so it imports only torch and uqabench's public names,
and nothing that one version alone has. The problem is a JSON object, its argument. Each line that it writes is one:
first what it is, then the seconds of each step. Each line that it reads is `step`, or the path of a file for what the
last step left (`torch.save` of tensors by name). It ends with its input, and leaves files in the current folder.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


class Turns:
    """Says what a step took, and waits for the next. tensors: what the last step left, by name."""

    def __init__(self, output: Any, tensors: Callable[[], Tensors]) -> None:
        self.output, self.tensors = output, tensors
        self.begin, self.idle_cpu = time.perf_counter(), 0.0

    def tell(self, **facts: Any) -> None:
        self.output.write(json.dumps(facts) + "\n")
        self.output.flush()

    def end(self) -> None:
        """The end of a step; returns where the next begins."""
        seconds, cpu = time.perf_counter() - self.begin, time.process_time()
        self.tell(seconds=seconds, idle_cpu_seconds=self.idle_cpu)
        for line in sys.stdin:
            if line.strip() == "step":
                self.begin, self.idle_cpu = time.perf_counter(), time.process_time() - cpu
                return
            torch.save(self.tensors(), line.strip())
            self.tell()
            cpu = time.process_time()
        sys.exit(0)


def lengths_and_times(problem: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets int64 (B+1,), and for each token a time in seconds, some of them equal."""
    offsets = torch.tensor([0, *problem["lengths"]]).cumsum(0)
    gaps = torch.randint(100_000, (int(offsets[-1]),), generator=torch.Generator().manual_seed(3))
    return offsets, 1_700_000_000 + (gaps * (gaps % 3 > 0)).cumsum(0)


def step_encoder(problem: dict[str, Any], output: Any) -> NoReturn:
    """Forward and backward with fresh gradients to the parameters and the input."""
    from uqabench.encoders import build_encoder
    from uqabench.stages.memory import keep_freed_memory

    keep_freed_memory()  # as training does
    torch.manual_seed(0)
    encoder = build_encoder(problem["encoder"], problem["preset"], **problem["overrides"]).train()
    initial = {f"weights {name}": value.detach().clone() for name, value in encoder.named_parameters()}
    offsets, times = lengths_and_times(problem)
    generator = torch.Generator().manual_seed(1)
    x, cotangent = torch.randn(2, int(offsets[-1]), encoder.width, generator=generator)
    x = x.clone().requires_grad_()
    extra = (times,) if problem["with_times"] else ()

    def tensors() -> Tensors:
        grads = {f"gradients {name}": p.grad for name, p in encoder.named_parameters() if p.grad is not None}
        return {**initial, **grads, "gradients x": x.grad, "outputs": states.detach()}

    turns = Turns(output, tensors)
    while True:
        encoder.zero_grad(set_to_none=True)
        x.grad = None
        states = encoder(x, offsets, *extra)
        states.backward(cotangent)
        turns.end()


def step_pretrain(problem: dict[str, Any], output: Any) -> None:
    """The whole stage, of which torch itself tells where a step of the optimiser ends: packing, item tower, encoder,
    cross entropy over the catalogue, clipping and AdamW lie between two of them."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from uqabench.stages.pretrain import PretrainConfig, pretrain

    encoder, optim = type(PretrainConfig().encoder), type(PretrainConfig().optim)
    config = PretrainConfig(
        encoder=encoder(encoder=problem["encoder"], preset=problem["preset"], overrides=problem["overrides"]),
        length=max(problem["lengths"]),
        batch_size=len(problem["lengths"]),
        token_budget=sum(problem["lengths"]),
        optim=optim(epochs=1_000_000, checkpoint_seconds=1e9),
    )
    done: list[Tensors] = []

    def ended(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not done:  # weights after one step follow from the same ones before, later ones from all between
            done.append({f"weights {i}": p.detach().clone() for i, p in enumerate(parameters)})
            done[0].update({f"gradients {i}": p.grad.clone() for i, p in enumerate(parameters) if p.grad is not None})
        turns.end()

    turns = Turns(output, lambda: done[0])
    register_optimizer_step_post_hook(ended)
    store = make_store(problem)
    if "out" in inspect.signature(pretrain).parameters:
        pretrain(store, Path("out"), config, progress=False)
    else:
        pretrain(store, config, progress=False).build(Path("out"))


def make_store(problem: dict[str, Any]) -> Any:
    """One training user for each length and one who evaluates, over items with a title of three words and a shop."""
    from uqabench.data import Catalogue, InteractionStore

    items, words, values = problem["items"], 5_000, {"title": problem["items"], "shop": 1 + problem["items"] // 100}
    random = np.random.default_rng(2)
    names = ("title", "category", "brand", "shop", "seller")
    values = {name: values.get(name, 0) for name in names}
    catalogue = Catalogue(
        item_ids=np.array([f"{i:09}" for i in range(items)], object),
        values={name: [f"{name} {i}" for i in range(n)] for name, n in values.items()},
        codes={
            name: (np.arange(items) % n if n else np.full(items, -1)).astype(np.int32) for name, n in values.items()
        },
        popularity=random.integers(1, 1000, items),
        tokens={
            name: (np.arange(0, 3 * n + 1, 3), random.integers(0, words, 3 * n).astype(np.int32))
            for name, n in values.items()
        },
        token_vocab_size=words,
        vocabulary=[f"word{i}" for i in range(words)],
    )
    lengths = [*problem["lengths"], 2]
    _, times = lengths_and_times({"lengths": lengths})
    return InteractionStore(
        offsets=np.cumsum([0, *lengths]),
        items=random.integers(0, items, sum(lengths)).astype(np.int32),
        timestamps=times.numpy() if problem["with_times"] else None,
        actions=None,
        user_ids=[str(i) for i in range(len(lengths))],
        split=np.array([0] * len(problem["lengths"]) + [1], np.int8),
        catalogue=catalogue,
        manifest={"content_hash": "made in memory"},
    )


def facts() -> dict[str, Any]:
    """Which uqabench this is, and what its operators run on."""
    import uqabench
    from uqabench.kernels.backend import native_module

    try:
        isa = native_module().instruction_set()
    except RuntimeError:
        isa = "no native module"
    return {
        "file": uqabench.__file__, "version": uqabench.__version__, "torch": torch.__version__, "isa": isa,
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def main() -> None:
    """Exit code 0, or 1 with the error as the last line that is written."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    problem = json.loads(sys.argv[1])
    try:
        output.write(json.dumps(facts()) + "\n")
        output.flush()
        (step_pretrain if problem["items"] else step_encoder)(problem, output)
    except Exception as error:  # whatever another version raises belongs into its sentence
        output.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
