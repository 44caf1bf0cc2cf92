#include "cpu/selective_scan.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

using MaybeFloats = std::optional<FloatArray>;

FloatRows rows(const FloatArray& x, const char* name, const Dims& shape) {
  require_shape(x, name, shape);
  return {x.data(), row_stride(x)};
}

FloatRows rows(const MaybeFloats& x, const char* name, const Dims& shape) {
  return x ? rows(*x, name, shape) : FloatRows{};
}

ScanInputs inputs(const FloatArray& u, const FloatArray& delta, const FloatArray& A, const FloatArray& B,
                  const FloatArray& C, const MaybeFloats& D, const MaybeFloats& z, const MaybeFloats& delta_bias,
                  const IndexArray& offsets, bool softplus, const MaybeFloats& initial_state, int threads) {
  require(u.ndim() == 2 && A.ndim() == 2, "u and A must have two dimensions.");
  const py::ssize_t tokens = u.shape(0), channels = u.shape(1), states = A.shape(1);
  require_threads(threads);
  ScanInputs in{};
  in.offsets = checked_offsets(offsets, tokens);
  in.sequences = offsets.size() - 1;
  in.tokens = tokens;
  in.channels = channels;
  in.states = states;
  in.u = rows(u, "u", {tokens, channels});
  in.delta = rows(delta, "delta", {tokens, channels});
  in.A = rows(A, "A", {channels, states});
  in.B = rows(B, "B", {tokens, states});
  in.C = rows(C, "C", {tokens, states});
  in.z = rows(z, "z", {tokens, channels});
  in.D = input(D, "D", {channels});
  in.delta_bias = input(delta_bias, "delta_bias", {channels});
  in.initial_state = input(initial_state, "initial_state", {in.sequences, channels, states});
  in.softplus = softplus;
  in.threads = threads;
  return in;
}

// The last two rows are never used. They keep the first dimension at 2 or more, so that torch.export, which specialises
// sizes of 0 and 1, takes any number of tokens.
Dims kept_shape(const ScanInputs& in) { return {in.tokens / scan_chunk + 2, in.states, in.channels}; }

}  // namespace

void bind_selective_scan(py::module_& m) {
  m.def(
      "selective_scan_forward",
      [](FloatArray y, MaybeFloats state, MaybeFloats kept, MaybeFloats ungated, const FloatArray& u,
         const FloatArray& delta, const FloatArray& A, const FloatArray& B, const FloatArray& C, const MaybeFloats& D,
         const MaybeFloats& z, const MaybeFloats& delta_bias, const IndexArray& offsets, bool softplus,
         const MaybeFloats& initial_state, int threads) {
        const ScanInputs in = inputs(u, delta, A, B, C, D, z, delta_bias, offsets, softplus, initial_state, threads);
        const ScanOutputs out{output(y, "y", {in.tokens, in.channels}),
                              output(state, "state", {in.sequences, in.channels, in.states}),
                              output(kept, "kept", kept_shape(in)),
                              output(ungated, "ungated", {in.tokens, in.channels})};
        py::gil_scoped_release release;
        selective_scan_forward(in, out);
      },
      py::arg("y").noconvert(), py::arg("state").noconvert(), py::arg("kept").noconvert(),
      py::arg("ungated").noconvert(), py::arg("u").noconvert(), py::arg("delta").noconvert(),
      py::arg("A").noconvert(), py::arg("B").noconvert(), py::arg("C").noconvert(), py::arg("D").noconvert(),
      py::arg("z").noconvert(), py::arg("delta_bias").noconvert(), py::arg("offsets").noconvert(), py::arg("softplus"),
      py::arg("initial_state").noconvert(), py::arg("threads"));
  m.def(
      "selective_scan_backward",
      [](FloatArray du, FloatArray ddelta, FloatArray dA, FloatArray dB, FloatArray dC, MaybeFloats dD, MaybeFloats dz,
         MaybeFloats ddelta_bias, MaybeFloats dinitial_state, const FloatArray& grad, const MaybeFloats& grad_state,
         const FloatArray& kept, const MaybeFloats& ungated, const FloatArray& u, const FloatArray& delta,
         const FloatArray& A, const FloatArray& B, const FloatArray& C, const MaybeFloats& D, const MaybeFloats& z,
         const MaybeFloats& delta_bias, const IndexArray& offsets, bool softplus, const MaybeFloats& initial_state,
         int threads) {
        const ScanInputs in = inputs(u, delta, A, B, C, D, z, delta_bias, offsets, softplus, initial_state, threads);
        const Dims by_channel{in.tokens, in.channels}, by_state{in.tokens, in.states};
        const Dims state{in.sequences, in.channels, in.states};
        require(!z || (dz && ungated), "z needs dz and ungated.");
        const ScanGradients gradients{output(du, "du", by_channel),
                                      output(ddelta, "ddelta", by_channel),
                                      output(dA, "dA", {in.channels, in.states}),
                                      output(dB, "dB", by_state),
                                      output(dC, "dC", by_state),
                                      output(dD, "dD", {in.channels}),
                                      output(dz, "dz", by_channel),
                                      output(ddelta_bias, "ddelta_bias", {in.channels}),
                                      output(dinitial_state, "dinitial_state", state)};
        const ScanResult result{input(kept, "kept", kept_shape(in)), input(ungated, "ungated", by_channel),
                                rows(grad, "grad", by_channel), input(grad_state, "grad_state", state)};
        py::gil_scoped_release release;
        selective_scan_backward(in, result, gradients);
      },
      py::arg("du").noconvert(), py::arg("ddelta").noconvert(), py::arg("dA").noconvert(), py::arg("dB").noconvert(),
      py::arg("dC").noconvert(), py::arg("dD").noconvert(), py::arg("dz").noconvert(),
      py::arg("ddelta_bias").noconvert(), py::arg("dinitial_state").noconvert(), py::arg("grad").noconvert(),
      py::arg("grad_state").noconvert(), py::arg("kept").noconvert(), py::arg("ungated").noconvert(),
      py::arg("u").noconvert(), py::arg("delta").noconvert(), py::arg("A").noconvert(), py::arg("B").noconvert(),
      py::arg("C").noconvert(), py::arg("D").noconvert(), py::arg("z").noconvert(), py::arg("delta_bias").noconvert(),
      py::arg("offsets").noconvert(), py::arg("softplus"), py::arg("initial_state").noconvert(), py::arg("threads"));
}

}  // namespace uqabench
