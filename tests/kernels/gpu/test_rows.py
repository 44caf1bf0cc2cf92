"""The operators that go row by row, around their tiles' edges: rms_norm, layer_norm, norm_gate, swiglu, rope."""

from __future__ import annotations

import pytest
import torch

from uqabench.encoders import build_encoder
from uqabench.kernels import layer_norm, norm_gate, rms_norm, rope, swiglu, use_backend
from uqabench.kernels.memory import know_offsets
from uqabench.kernels.rope import rope_angles

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, assert_same_bits, reference_results
from .conftest import DEVICE, gpu_results

triton = pytest.importorskip("triton")

from uqabench.kernels.triton_norms import tile  # noqa: E402

CALLS = {
    "rms_norm": lambda x, weight: rms_norm(x, weight),
    "rms_norm and sum": lambda x, weight, other: rms_norm(x, weight, residual=other),
    "layer_norm": lambda x, weight, bias: layer_norm(x, weight, bias),
    "layer_norm, plain": lambda x: layer_norm(x),
    "layer_norm, weight": lambda x, weight: layer_norm(x, weight),
    "layer_norm, bias": lambda x, bias: layer_norm(x, None, bias),
    "norm_gate": lambda x, other: norm_gate(x, other),
    "norm_gate with dropout": lambda x, other: norm_gate(x, other, 1e-6, 0.3, torch.tensor(7 - 2**62).to(x.device)),
    "swiglu": lambda x, other: swiglu(x, other),
    "swiglu, side by side": lambda both: swiglu(both),
}
DTYPES = [torch.float32, torch.bfloat16]
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def make_inputs(call, rows: int, width: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What `call` takes, x and other with strided rows."""
    generator = torch.Generator().manual_seed(rows + width)
    joint = torch.randn(rows, 2 * width + 3, generator=generator).add(0.5).to(dtype)
    vectors = torch.randn(2, width, generator=generator).to(dtype)
    inputs = {"x": joint[:, :width], "other": joint[:, width : 2 * width], "weight": vectors[0], "bias": vectors[1]}
    inputs["both"] = joint[:, : 2 * width]
    return {name: inputs[name] for name in call.__code__.co_varnames[: call.__code__.co_argcount]}


def assert_matches(call, inputs: dict[str, torch.Tensor]) -> None:
    tolerance = TOLERANCES[next(iter(inputs.values())).dtype]
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), tolerance)


@every_call
@every_dtype
@pytest.mark.parametrize("width", [1, 16, 17, 2100])
def test_any_width(call, width, dtype):
    assert_matches(call, make_inputs(call, 3, width, dtype))


@every_call
@every_dtype
@pytest.mark.parametrize(("tiles", "difference"), [(1, -1), (1, 0), (4, 1)])
def test_any_number_of_rows(call, tiles, difference, dtype):
    """One tile and more than interpreted programs; with 0 rows see test_every_operator.py."""
    assert_matches(call, make_inputs(call, tiles * tile(40).kwargs["ROWS"] + difference, 40, dtype))


@every_call
def test_half_precision(call):
    inputs = make_inputs(call, 5, 33, torch.float16)
    assert_close(gpu_results("triton", call, inputs), reference_results(call, inputs), 5e-3)


@every_call
@pytest.mark.slow
def test_the_widest_rows(call):
    assert_matches(call, make_inputs(call, 5, 16_384, torch.float32))


@every_call
def test_the_same_bits_again(call):
    inputs = make_inputs(call, 70, 24, torch.float32)
    assert_same_bits(gpu_results("triton", call, inputs), gpu_results("triton", call, inputs))


@every_call
def test_gradients_that_are_no_rows_in_memory(call):
    """Of a sum, one number for all; and columns before rows."""
    inputs = make_inputs(call, 6, 20, torch.float32)

    def total(**named):
        y = call(**named)
        return (y if isinstance(y, torch.Tensor) else y[0]).sum()

    def turned(**named):
        y = call(**named)
        return (y if isinstance(y, torch.Tensor) else y[0]).T.contiguous()

    assert_matches(total, inputs)
    assert_matches(turned, inputs)


@pytest.mark.parametrize(("rows", "width"), [(0, 9), (1, 1), (3, 17), (70, 24), (129, 40), (3, 2100)])
def test_rms_norm_of_a_wider_stream(rows, width):
    """bf16 beside fp32: no more is rounded than what has bf16, which is each input's gradient and each result as it."""
    inputs = make_inputs(CALLS["rms_norm and sum"], rows, width, torch.float32)
    mixed = {"x": inputs["x"].bfloat16(), "weight": inputs["weight"], "residual": inputs["other"]}
    assert_matches(rms_norm, mixed)
    found, expected = (gpu_results(backend, rms_norm, mixed) for backend in ("triton", "eager"))
    assert {name: x.dtype for name, x in found.items()} == {name: x.dtype for name, x in expected.items()}
    wide = [name for name, x in found.items() if x.dtype == torch.float32]
    assert wide == ["output 1", "gradient of weight", "gradient of residual"]
    assert_close({name: found[name] for name in wide}, {name: expected[name] for name in wide}, 2e-5)

    def alone(total, weight):
        return rms_norm(total, weight, dtype=torch.bfloat16)

    total = {"total": mixed["x"] + mixed["residual"], "weight": mixed["weight"]}
    found_alone, expected_alone = (gpu_results(backend, alone, total) for backend in ("triton", "eager"))
    assert torch.equal(found_alone.pop("output 0"), found["output 0"])
    del expected_alone["output 0"]  # rounded
    assert_close(found_alone, expected_alone, 2e-5)


@pytest.mark.skipif(DEVICE == "cuda", reason="programs of a GPU come in any order by themselves")
@pytest.mark.parametrize("count", [1, 2, 7, 23])
def test_sums_do_not_depend_on_which_program_comes_last(monkeypatch, count):
    """Interpreted programs run one after the other: here in three orders, by which other ones end a group."""
    from triton.runtime.interpreter import interpreter_builder

    from uqabench.kernels import triton_norms

    monkeypatch.setattr(triton_norms, "programs", lambda *_: count)
    call, inputs = CALLS["layer_norm"], make_inputs(CALLS["layer_norm"], 32 * 24 + 5, 24, torch.float32)
    expected = gpu_results("triton", call, inputs)
    assert_close(expected, reference_results(call, inputs), TOLERANCES[torch.float32])
    place = interpreter_builder.set_grid_idx
    for order in (range(count)[::-1], [(5 * i + 3) % count for i in range(count)]):
        monkeypatch.setattr(
            interpreter_builder, "set_grid_idx",
            lambda x, *rest, order=order: place(order[x] if interpreter_builder.grid_dim[0] == count else x, *rest),
        )  # fmt: skip
        assert_same_bits(gpu_results("triton", call, inputs), expected)
    assert not triton_norms._counters(inputs["x"]).any()


def test_the_sum_alone_is_differentiated():
    inputs = make_inputs(CALLS["rms_norm and sum"], 4, 9, torch.float32)
    assert_matches(lambda x, weight, other: rms_norm(x, weight, residual=other)[1], inputs)


def test_any_leading_shape():
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    assert_matches(lambda x: layer_norm(x.transpose(0, 1)), {"x": x})


def test_only_some_inputs_are_differentiated():
    inputs = {name: x.to(DEVICE) for name, x in make_inputs(CALLS["layer_norm"], 9, 12, torch.float32).items()}
    whole = gpu_results("triton", CALLS["layer_norm"], inputs)
    frozen = inputs.pop("weight")
    part = gpu_results("triton", lambda x, bias: layer_norm(x, frozen, bias), inputs)
    assert_same_bits(part, {name: x for name, x in whole.items() if name != "gradient of weight"})


def test_hstu_draws_its_dropout_from_torchs_generator():
    block = build_encoder("hstu", "tiny", dropout=0.4).blocks[0].train()
    x, u = torch.randn(2, 5, block.v_width, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with use_backend("triton"):
        torch.manual_seed(3)
        found = block.gate(x, u)
        torch.manual_seed(3)
        seed = torch.randint(2**62, (), device=DEVICE)
        assert torch.equal(found, norm_gate(x, u, 1e-6, 0.4, seed))
        assert not torch.equal(found, block.gate(x, u))
        assert torch.equal(block.eval().gate(x, u), norm_gate(x, u, 1e-6))


def rope_inputs(tokens: int, heads: int, kv_heads: int, width: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    joint = torch.randn(tokens, (heads + kv_heads) * width + 3, generator=generator).to(dtype)
    q, k, _ = joint.split([heads * width, kv_heads * width, 3], dim=1)
    return {"q": q.unflatten(1, (heads, width)), "k": k.unflatten(1, (kv_heads, width))}


def assert_rope_matches(inputs: dict[str, torch.Tensor], lengths: list[int], base: float = 10000.0) -> None:
    offsets = offsets_of(lengths)
    assert_matches(lambda q, k: rope(q, k, offsets.to(q.device), base), inputs)


@every_dtype
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width"), [(1, 1, 2), (2, 1, 6), (3, 5, 16), (8, 2, 64), (9, 9, 18), (1, 3, 256)]
)
def test_rope_of_any_heads(heads, kv_heads, width, dtype):
    assert_rope_matches(rope_inputs(13, heads, kv_heads, width, dtype), [5, 0, 7, 1])


@pytest.mark.parametrize("lengths", [[63], [64], [65], [0, 1, 0, 0, 63, 64, 2, 0], [1] * 37, [0] * 8 + [3]], ids=str)
def test_rope_of_any_lengths(lengths):
    assert_rope_matches(rope_inputs(sum(lengths), 2, 1, 8, torch.float32), lengths)


@pytest.mark.parametrize("lengths", [[300, 0, 7], [1], [0, 0], [2] * 40], ids=str)
def test_rope_by_angles_made_before(lengths):
    """One table for all layers: of the positions that the host knows of, else of as many as there are tokens."""
    inputs, offsets = rope_inputs(sum(lengths), 2, 1, 12, torch.float32), offsets_of(lengths).to(DEVICE)
    q, k = (x.to(DEVICE) for x in inputs.values())
    with use_backend("triton"):
        unknown = rope_angles(q, offsets, 12, 50.0)
        assert unknown.table.shape == (sum(lengths), 12) and unknown is rope_angles(k, offsets, 12, 50.0)
        known = rope_angles(q, know_offsets(offsets.clone(), offsets.cpu().numpy()), 12, 50.0)
        assert known.table.shape[0] == max(lengths) and known.positions.dtype == torch.int32
        assert torch.equal(known.positions.cpu(), torch.cat([torch.arange(n) for n in lengths]))
        assert torch.equal(known.table, unknown.table[: max(lengths)])
    assert_matches(
        lambda q, k: rope(q, k, offsets.to(q.device), 50.0, known if q.dtype == torch.float32 else None), inputs
    )
    assert rope_angles(q.cpu(), offsets.cpu(), 12) is None


@pytest.mark.parametrize("base", [0.5, 1.0, 10000.0])
def test_rope_angles_are_exact_far_out(base):
    """fp32 products of position and frequency would be 2e-5 off at 300."""
    offsets = offsets_of([300])
    inputs = {"q": torch.ones(300, 1, 6), "k": torch.ones(300, 1, 6)}
    expected = reference_results(lambda q, k: rope(q, k, offsets, base), inputs)
    found = gpu_results("triton", lambda q, k: rope(q, k, offsets.to(q.device), base), inputs)
    assert_close(found, expected, 1e-6)
