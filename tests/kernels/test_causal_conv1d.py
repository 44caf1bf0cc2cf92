from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import conv1d, silu

from uqabench.kernels import causal_conv1d, use_backend
from uqabench.kernels.backend import available, native_module
from uqabench.kernels.causal_conv1d import eager

BACKENDS = [name for name in ("eager", "native") if available("causal_conv1d")[name] is None]  # gpu/ has the others
RAGGED = [[], [0], [1], [2, 3, 4], [7], [8, 9], [0, 1, 7, 8, 9, 0, 33, 64]]
CHANNELS = 5


def offsets_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def make_inputs(
    tokens: int, sequences: int, taps: int, dtype: torch.dtype = torch.float32, channels: int = CHANNELS
) -> dict[str, torch.Tensor]:
    torch.manual_seed(tokens)
    inputs = {
        "x": torch.randn(tokens, channels),
        "weight": torch.randn(channels, taps),
        "bias": torch.randn(channels),
        "initial_state": torch.randn(sequences, channels, taps - 1),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def full(offsets):
    return lambda **inputs: causal_conv1d(**inputs, offsets=offsets, activation="silu", return_state=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_matches_the_reference(matches_reference, backend, lengths, taps):
    inputs = make_inputs(sum(lengths), len(lengths), taps)
    offsets = offsets_of(lengths)
    matches_reference(full(offsets), inputs, backend)
    required = {name: inputs[name] for name in ("x", "weight")}
    matches_reference(lambda **xs: causal_conv1d(**xs, bias=None, offsets=offsets), required, backend)


def test_matches_the_reference_across_its_blocks(matches_reference, monkeypatch):
    monkeypatch.setattr(eager, "_BLOCK_ELEMENTS", 6 * CHANNELS)
    matches_reference(full(offsets_of([1, 8, 33])), make_inputs(42, 3, 4), "eager")


def test_matches_the_reference_in_bfloat16(matches_reference):
    matches_reference(full(offsets_of([1, 8, 33])), make_inputs(42, 3, 4, torch.bfloat16), "eager")


def test_gradients_agree_with_finite_differences():
    inputs = make_inputs(9, 4, 3, torch.float64)
    leaves = [x.requires_grad_() for x in inputs.values()]
    call = full(offsets_of([0, 3, 5, 1]))
    assert torch.autograd.gradcheck(lambda *xs: call(**dict(zip(inputs, xs, strict=True))), leaves)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_is_torchs_padded_convolution_of_each_sequence(backend):
    inputs = make_inputs(12, 2, 4)
    weight, bias = inputs["weight"], inputs["bias"]
    expected = torch.cat(
        [silu(conv1d(x.t(), weight[:, None], bias, padding=3, groups=CHANNELS)[:, : len(x)]).t()
         for x in inputs["x"].split([10, 2])]
    )  # fmt: skip
    with use_backend(backend):
        y = causal_conv1d(inputs["x"], weight, bias, offsets_of([10, 2]), activation="silu")
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("taps", "channels"), [(4, 259), (4, 16), (3, 259), (70, 3)])
def test_matches_the_reference_over_many_blocks(matches_reference, backend, taps, channels):
    lengths = [63, 64, 65, 1, 3, 0, 130]
    inputs = make_inputs(sum(lengths), len(lengths), taps, channels=channels)
    matches_reference(full(offsets_of(lengths)), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_matches_the_reference_on_a_sequence_of_512(matches_reference, backend):
    matches_reference(full(offsets_of([512])), make_inputs(512, 1, 4), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [None, "silu"])
def test_strided_rows_and_a_state_that_none_reads(matches_reference, backend, activation):
    offsets = offsets_of([2, 0, 67])

    def call(joint, weights, states):
        x, weight, state = joint[:, 3:8], weights[:, 1:5], states[:, ::2]
        return causal_conv1d(x, weight, None, offsets, activation=activation, initial_state=state)

    torch.manual_seed(0)
    inputs = {"joint": torch.randn(69, 11), "weights": torch.randn(5, 6), "states": torch.randn(3, 10, 3)}
    matches_reference(call, inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_sequence(backend):
    inputs = {name: x.requires_grad_() for name, x in make_inputs(80, 3, 4).items()}
    with torch.no_grad():
        inputs["x"][30], inputs["initial_state"][2] = float("nan"), float("inf")
    with use_backend(backend):
        y, state = full(offsets_of([30, 40, 10]))(**inputs)
        gx, gs = torch.autograd.grad(y.sum() + state.sum(), (inputs["x"], inputs["initial_state"]))
    assert y[:30].isfinite().all() and y[34:70].isfinite().all() and y[73:].isfinite().all()
    assert y[30:34].isnan().all() and not y[70].isfinite().any()
    assert gx[:30].isfinite().all() and gs[0].isfinite().all() and gx[73:].isfinite().all()


def gradients(call, lengths, channels=259):
    inputs = make_inputs(sum(lengths), len(lengths), 4, channels=channels)
    leaves = [x.requires_grad_() for x in inputs.values()]
    y, state = call(**inputs)
    return y, state, *torch.autograd.grad(y.square().sum() + state.square().sum(), leaves)


@pytest.mark.skipif("native" not in BACKENDS, reason="no compiled module")
class TestNative:
    LENGTHS = (1, 3, 0, 130, 64)

    def full(self, **inputs):
        return full(offsets_of(self.LENGTHS))(**inputs)

    @pytest.mark.parametrize("threads", [2, 5])
    def test_is_the_same_to_the_bit_on_any_number_of_threads(self, threads):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            expected = gradients(self.full, self.LENGTHS)
            torch.set_num_threads(threads)
            for got, want in zip(gradients(self.full, self.LENGTHS), expected, strict=True):
                assert torch.equal(got, want)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("name", native_module().instruction_sets() if "native" in BACKENDS else [])
    @pytest.mark.parametrize("taps", [3, 4])
    def test_on_every_instruction_set(self, matches_reference, name, taps):
        widest = native_module().instruction_set()
        try:
            native_module().set_instruction_set(name)
            matches_reference(self.full, make_inputs(sum(self.LENGTHS), 5, taps, channels=21), "native")
        finally:
            native_module().set_instruction_set(widest)

    def test_compiles_into_one_graph_with_gradients(self):
        offsets = offsets_of(self.LENGTHS)

        def call(**inputs):
            return causal_conv1d(**inputs, offsets=offsets, activation="silu", return_state=True)

        compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
        expected = gradients(call, self.LENGTHS, channels=5)
        for got, want in zip(gradients(compiled, self.LENGTHS, channels=5), expected, strict=True):
            assert torch.equal(got, want)

    @pytest.mark.parametrize("is_full", [True, False])
    def test_is_registered_correctly(self, is_full):
        inputs = make_inputs(9, 3, 4)
        x, weight, bias, state = (x.requires_grad_() for x in inputs.values())
        bias, state = (bias, state) if is_full else (None, None)
        arguments = (x, weight, bias, offsets_of([2, 0, 7]), is_full, state, is_full, "native")
        torch.library.opcheck(torch.ops.uqabench.causal_conv1d, arguments)

    def test_the_module_checks_what_could_leave_memory(self):
        x, weight, state = np.zeros((4, 2), np.float32), np.zeros((2, 3), np.float32), np.zeros((1, 2, 2), np.float32)
        good = {"out": x.copy(), "state": state.copy(), "x": x, "weight": weight, "bias": None, "initial_state": state}
        good |= {"offsets": np.array([0, 4]), "is_silu": True, "threads": 1}
        native_module().causal_conv1d_forward(**good)
        for name, bad in (("out", x[:3]), ("state", state[:, :1]), ("weight", weight[:1]), ("initial_state", state[:0]),
                          ("bias", weight[0]), ("offsets", np.array([0, 5])), ("threads", 0)):  # fmt: skip
            with pytest.raises(ValueError, match=rf"^{name}\b"):
                native_module().causal_conv1d_forward(**(good | {name: bad}))
        gradients = [x.copy(), weight.copy(), weight[:, 0].copy(), state.copy()]
        arguments = [x, state, x, weight, None, np.array([0, 4]), False, state]
        native_module().causal_conv1d_backward(*gradients, *arguments, threads=1)
        for name, place, bad in (("grad", 0, x[:3]), ("grad_state", 1, state[:, :1])):
            wrong = [bad if i == place else a for i, a in enumerate(arguments)]
            with pytest.raises(ValueError, match=rf"^{name} has"):
                native_module().causal_conv1d_backward(*gradients, *wrong, threads=1)
        with pytest.raises(ValueError, match="^dinitial_state has"):
            native_module().causal_conv1d_backward(*gradients[:3], state[:0], *arguments, threads=1)


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("x", torch.zeros(6, CHANNELS, 1), ValueError),
        ("weight", torch.zeros(CHANNELS - 1, 4), ValueError),
        ("weight", torch.zeros(CHANNELS, 0), ValueError),
        ("weight", torch.zeros(CHANNELS, 4, dtype=torch.bfloat16), TypeError),
        ("bias", torch.zeros(CHANNELS, 1), ValueError),
        ("activation", "relu", ValueError),
        ("initial_state", torch.zeros(2, CHANNELS, 4), ValueError),
        ("offsets", torch.tensor([0, 6, 4]), ValueError),
    ],
)
def test_bad_arguments_are_named(name, bad, error):
    arguments = {**make_inputs(6, 2, 4), "offsets": offsets_of([4, 2]), name: bad}
    with pytest.raises(error, match=rf"^{name}\b"):
        causal_conv1d(**arguments)
