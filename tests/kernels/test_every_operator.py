"""What holds for every operator, whatever its formula; the native backend counts from the day it is registered."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from uqabench import kernels
from uqabench.kernels import use_backend
from uqabench.kernels.backend import available, choose

from .cases import NAMES, RAGGED, Case, case, offsets_of
from .conftest import TOLERANCES, assert_close, assert_same_bits, outputs_and_gradients, reference_results

LARGE = (300, 0, 513, 64, 1, 259)  # past the blocks, chunks and slices of every kernel
SMALLEST = [(), (0,), (1,), (0, 1, 0), (2, 3)]


def can_run(name: str, backend: str) -> bool:
    return available(name)[backend] is None


NATIVE = [name for name in NAMES if can_run(name, "native")]
NATIVE_DTYPES = [(n, d) for n in NATIVE for d in (torch.float32, torch.bfloat16) if choose(n, "cpu", d) == "native"]
PACKED = [name for name in NAMES if case(name).lengths is not None]
native = pytest.mark.parametrize("name", NATIVE)
native_dtypes = pytest.mark.parametrize(("name", "dtype"), NATIVE_DTYPES, ids=str)
packed = pytest.mark.parametrize("name", PACKED)
backends = pytest.mark.parametrize("backend", ["eager", "native"])


def run(example: Case) -> dict[str, Tensor]:
    return outputs_and_gradients(example.run, example.arrays)


@pytest.fixture
def one_thread(threads):
    """Small eager operations wait longer for their threads than they work."""
    threads(1)


def skip_unless(name: str, backend: str) -> None:
    if not can_run(name, backend):
        pytest.skip(f"{name} has no {backend} backend")


@functools.cache
def expected(name: str, lengths: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    example = case(name, lengths, dtype)
    return reference_results(example.run, example.arrays)


def test_every_operator_has_an_example():
    assert set(NAMES) == set(kernels.__all__) - {"use_backend"}


@native_dtypes
def test_matches_the_reference_on_every_instruction_set(instruction_set, name, dtype):
    assert_close(run(case(name, dtype=dtype)), expected(name, RAGGED, dtype), TOLERANCES[dtype])


@native_dtypes
@pytest.mark.parametrize("lengths", SMALLEST, ids=str)
def test_matches_the_reference_where_there_is_little_or_nothing(name, lengths, dtype):
    assert_close(run(case(name, lengths, dtype)), expected(name, lengths, dtype), TOLERANCES[dtype])


@native_dtypes
def test_the_same_bits_on_any_number_of_threads_and_again(threads, name, dtype):
    if name == "gru":
        pytest.skip("torch's products of the inputs and for the weights' gradients are inside: see test_gru_native.py")
    example = case(name, LARGE, dtype)
    threads(1)
    alone = run(example)
    for n in (2, 5, 5):
        threads(n)
        assert_same_bits(run(example), alone)


@native
def test_the_same_bits_beside_another_python_thread(name):
    examples = [case(name, LARGE, seed=seed) for seed in (0, 1)]
    alone = [run(example) for example in examples]
    together: list[list[dict[str, Tensor]]] = [[], []]
    start = threading.Barrier(2)

    def repeat(i: int) -> None:
        start.wait()
        together[i] += [run(examples[i]) for _ in range(3)]

    workers = [threading.Thread(target=repeat, args=(i,)) for i in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for results, want in zip(together, alone, strict=True):
        assert len(results) == 3
        for got in results:
            assert_same_bits(got, want)


@native_dtypes
def test_compiles_into_one_graph_with_gradients(name, dtype):
    torch.compiler.reset()
    example, offsets = case(name, dtype=dtype), offsets_of(RAGGED)
    compiled = torch.compile(example.run, backend="aot_eager", fullgraph=True, dynamic=True)
    traced = outputs_and_gradients(lambda **arrays: compiled(offsets, **arrays), example.arrays)
    assert_same_bits(traced, run(example))


class Registered(TorchDispatchMode):
    """Keeps one call of each of this package's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "uqabench":
            self.calls[func.name()] = func, args, kwargs
        return func(*args, **(kwargs or {}))


@native_dtypes
def test_registered_operators_pass_torchs_own_checks(name, dtype):
    """Schema, fake kernel and autograd, forward and backward."""
    example = case(name, (9, 0, 17), dtype)
    with Registered() as forward:
        example.run()
    with Registered() as backward:
        run(example)
    assert forward.calls, f"the native {name} is not registered with torch"
    is_differentiable = backward.calls.keys() != forward.calls.keys()
    for key, (func, args, kwargs) in backward.calls.items():
        requires_grad = is_differentiable and key in forward.calls

        def leaf(x: object, requires_grad: bool = requires_grad) -> object:
            is_float = isinstance(x, Tensor) and x.is_floating_point()
            return x.detach().requires_grad_(requires_grad) if is_float else x

        tests = ("test_schema", "test_autograd_registration", "test_faketensor")  # tracing is tested above
        torch.library.opcheck(func, *tree_map(leaf, (args, kwargs)), test_utils=tests)


@backends
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("one_thread")
def test_inference_gives_what_training_gives(name, backend):
    skip_unless(name, backend)
    example = case(name)
    with use_backend(backend):
        trained = {key: x for key, x in run(example).items() if key.startswith("output")}
        with torch.inference_mode():
            inferred = {f"output {i}": y for i, y in enumerate(example.run())}
    assert_close(inferred, trained, 2e-6)


def of_tokens(lengths: tuple[int, ...], sequences: list[int]) -> Tensor:
    """Which tokens belong to `sequences`."""
    return torch.repeat_interleave(
        torch.isin(torch.arange(len(lengths)), torch.tensor(sequences)), torch.tensor(lengths)
    )


def results_of(example: Case, arrays: Mapping[str, Tensor], sequences: list[int]) -> dict[str, Tensor]:
    """Outputs of some sequences, and the gradients of those outputs to those sequences' own inputs."""
    tokens = of_tokens(example.lengths, sequences)
    rows = {"tokens": tokens, "sequences": torch.tensor(sequences, dtype=torch.int64)}

    def call(**arrays: Tensor) -> tuple[Tensor, ...]:
        return tuple(y[rows[kind]] for y, kind in zip(example.run(**arrays), example.outputs, strict=True))

    results = outputs_and_gradients(call, arrays)
    kept = {name: x for name, x in results.items() if name.startswith("output")}
    for names, kind in ((example.tokens, "tokens"), (example.sequences, "sequences")):
        kept |= {key: results[key][rows[kind]] for name in names if (key := f"gradient of {name}") in results}
    return kept


def poisoned(example: Case, sequence: int) -> dict[str, Tensor]:
    tokens = of_tokens(example.lengths, [sequence])
    arrays = {name: x.clone() for name, x in example.arrays.items()}
    for name, value in example.tokens.items():
        arrays[name][tokens] = value
    for name in example.sequences:
        arrays[name][sequence] = torch.nan
    return arrays


@pytest.mark.parametrize(
    ("backend", "name", "dtype"),
    [("eager", n, torch.float32) for n in PACKED] + [("native", n, d) for n, d in NATIVE_DTYPES if n in PACKED],
    ids=str,
)
@pytest.mark.usefixtures("one_thread")
def test_nan_stays_in_its_sequence(backend, name, dtype):
    """Not even its gradient crosses over."""
    example = case(name, dtype=dtype)
    with use_backend(backend):
        for sequence in range(len(example.lengths)) if backend == "native" else (2, 1):
            others = [b for b in range(len(example.lengths)) if b != sequence]
            results = results_of(example, poisoned(example, sequence), others)
            if backend == "native":
                assert_same_bits(results, results_of(example, example.arrays, others))
            else:  # torch may sum in another order
                assert_close(results, results_of(example, example.arrays, others), 2e-5)
            if example.lengths[sequence]:
                assert any(y.isnan().any() for y in example.run(**poisoned(example, sequence)))


def permuted(example: Case, order: list[int]) -> Iterator[tuple[str, Tensor]]:
    for name, x in example.arrays.items():
        if name in example.tokens:
            pieces = x.split(list(example.lengths))
            yield name, torch.cat([pieces[b] for b in order])
        else:
            yield name, x[order] if name in example.sequences else x


@backends
@packed
@pytest.mark.usefixtures("one_thread")
def test_sequences_may_come_in_any_order(name, backend):
    skip_unless(name, backend)
    example = case(name)
    order = [3, 1, 5, 0, 4, 2]
    offsets = offsets_of([example.lengths[b] for b in order])
    with use_backend(backend):
        straight = example.run()
        moved = example.run(offsets, **dict(permuted(example, order)))
    for kind, y, got in zip(example.outputs, straight, moved, strict=True):
        pieces = y.split(list(example.lengths)) if kind == "tokens" else y[:, None]
        want = torch.cat([pieces[b] for b in order])
        torch.testing.assert_close(got.view_as(want), want)


WRONG_OFFSETS = [
    (lambda o: o + 1, ValueError),
    (lambda o: o - 1, ValueError),
    (lambda o: torch.cat([o, torch.tensor([2**62])]), ValueError),
    (lambda o: torch.cat([o[:1], torch.tensor([-(2**63), 2**63 - 1]), o[1:]]), ValueError),
    (lambda o: o[:-1], ValueError),
    (lambda o: o.flip(0), ValueError),
    (lambda o: o[:0], ValueError),
    (lambda o: o[None], ValueError),
    (lambda o: o.int(), TypeError),
    (lambda o: o.double(), TypeError),
    (lambda o: o.tolist(), TypeError),
    (lambda o: None, TypeError),
    (lambda o: o.to("meta"), ValueError),
]


@packed
def test_wrong_offsets_are_named(name):
    example = case(name)
    for change, error in WRONG_OFFSETS:
        with pytest.raises(error, match="^offsets"):
            example.operator(**example.arrays, **example.settings, offsets=change(offsets_of(RAGGED)))
