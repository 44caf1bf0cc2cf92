from __future__ import annotations

import pytest
import torch

from uqabench.kernels import gru, use_backend
from uqabench.kernels.backend import available

BACKENDS = [name for name, problem in available("gru").items() if problem is None and name != "reference"]
RAGGED = [[], [0], [1], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
WIDTH, HIDDEN = 5, 3
PARTS = ("w_ih", "w_hh", "b_ih", "b_hh")


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(
    tokens: int, sequences: int, layers: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {"x": torch.randn(tokens, WIDTH), "h0": torch.randn(layers, sequences, HIDDEN)}
    for i in range(layers):
        shapes = ((3 * HIDDEN, HIDDEN if i else WIDTH), (3 * HIDDEN, HIDDEN), (3 * HIDDEN,), (3 * HIDDEN,))
        inputs |= {f"{part} {i}": torch.randn(shape) for part, shape in zip(PARTS, shapes, strict=True)}
    return {name: x.to(dtype) for name, x in inputs.items()}


def call_with(offsets, layers: int, return_state: bool = True):
    """The operator as a function of named tensors; a missing bias is None."""

    def call(**inputs):
        weights = [tuple(inputs.get(f"{part} {i}") for part in PARTS) for i in range(layers)]
        return gru(inputs["x"], weights, offsets, h0=inputs.get("h0"), return_state=return_state)

    return call


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, lengths, layers):
    matches_reference(call_with(offsets_of(lengths), layers), make_inputs(sum(lengths), len(lengths), layers), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("missing", [{"h0"}, {"b_ih 0"}, {"b_hh 0"}, {"b_ih 0", "b_hh 0"}], ids=str)
def test_matches_the_reference_without_optional_inputs(matches_reference, backend, missing):
    inputs = {name: x for name, x in make_inputs(12, 3, 1).items() if name not in missing}
    matches_reference(call_with(offsets_of([4, 0, 8]), 1, return_state=False), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_of_512(matches_reference, backend):
    inputs = make_inputs(513, 2, 1)
    inputs["w_hh 0"] /= 4  # no chaos: float32 could not follow it
    matches_reference(call_with(offsets_of([512, 1]), 1), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_sequence(backend):
    inputs = make_inputs(17, 3, 2)
    inputs["x"][8] = float("nan")
    with use_backend(backend):
        out, states = call_with(offsets_of([7, 4, 6]), 2)(**inputs)
    is_hit = torch.zeros(17, dtype=torch.bool)
    is_hit[8:11] = True
    assert out[is_hit].isnan().all() and out[~is_hit].isfinite().all()
    assert states[:, 1].isnan().all() and states[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize("lengths", [[], [0], [0, 1, 7, 8, 0, 33]], ids=str)
@pytest.mark.parametrize("missing", [set(), {"h0", "b_hh 1"}], ids=str)
def test_inference_equals_training(lengths, missing):
    inputs = make_inputs(sum(lengths), len(lengths), 2)
    inputs = {name: x.requires_grad_() for name, x in inputs.items() if name not in missing}
    call = call_with(offsets_of(lengths), 2)
    trained = call(**inputs)
    with torch.no_grad():
        torch.testing.assert_close(call(**inputs), tuple(y.detach() for y in trained))


def test_matches_the_reference_in_bfloat16(matches_reference):
    matches_reference(call_with(offsets_of([1, 8, 33]), 1), make_inputs(42, 3, 1, torch.bfloat16), "eager")


def test_gradients_agree_with_finite_differences():
    inputs = make_inputs(9, 4, 2, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    call = call_with(offsets_of([0, 3, 5, 1]), 2)
    assert torch.autograd.gradcheck(lambda *xs: call(**dict(zip(inputs, xs, strict=True))), leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_is_torchs_gru_of_each_sequence(backend):
    inputs = make_inputs(12, 2, 2)
    module = torch.nn.GRU(WIDTH, HIDDEN, num_layers=2)
    module.load_state_dict({f"{p.replace('w', 'weight').replace('b', 'bias', 1)}_l{i}": inputs[f"{p} {i}"]
                            for i in range(2) for p in PARTS})  # fmt: skip
    expected = torch.cat([module(x, inputs["h0"][:, b])[0] for b, x in enumerate(inputs["x"].split([10, 2]))])
    with use_backend(backend):
        torch.testing.assert_close(call_with(offsets_of([10, 2]), 2, False)(**inputs), expected.detach())


@pytest.mark.parametrize(
    ("name", "bad", "error", "named"),
    [
        ("x", torch.zeros(6), ValueError, "x"),
        ("h0", torch.zeros(2, 2, HIDDEN), ValueError, "h0"),
        ("w_ih 0", torch.zeros(3 * HIDDEN, WIDTH + 1), ValueError, r"weights\[0\]'s w_ih"),
        ("w_hh 0", torch.zeros(HIDDEN, HIDDEN), ValueError, r"weights\[0\]'s w_hh"),
        ("w_hh 0", None, TypeError, r"weights\[0\]'s w_hh"),
        ("b_ih 0", torch.zeros(HIDDEN), ValueError, r"weights\[0\]'s b_ih"),
        ("b_hh 0", torch.zeros(3 * HIDDEN, dtype=torch.float64), TypeError, r"weights\[0\]'s b_hh"),
    ],
)
def test_bad_tensors_are_named(name, bad, error, named):
    with pytest.raises(error, match=f"^{named}"):
        call_with(offsets_of([4, 2]), 1)(**{**make_inputs(6, 2, 1), name: bad})


@pytest.mark.parametrize(
    "weights", [[], torch.zeros(1), [torch.zeros(9, 5)], None], ids=["none", "tensor", "flat", "null"]
)
def test_bad_weight_lists_are_named(weights):
    with pytest.raises(TypeError, match="^weights"):
        gru(torch.zeros(6, WIDTH), weights, offsets_of([4, 2]))


def test_bad_offsets_are_named():
    with pytest.raises(ValueError, match="^offsets"):
        call_with(torch.tensor([0, 7]), 1)(**make_inputs(6, 1, 1))
