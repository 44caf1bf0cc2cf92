#include "cpu/causal_conv1d.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

struct Checked {
  CausalConv1d in;
  Dims x, weight, channels, state;
};

Checked check(const FloatArray& x, const FloatArray& weight, const std::optional<FloatArray>& bias,
              const IndexArray& offsets, bool is_silu, const std::optional<FloatArray>& initial_state, int threads) {
  require(x.ndim() == 2 && weight.ndim() == 2, "x and weight must have two dimensions.");
  const py::ssize_t tokens = x.shape(0), channels = x.shape(1), taps = weight.shape(1);
  require(taps >= 1, "weight must have at least one tap.");
  require_shape(x, "x", {tokens, channels});
  require_shape(weight, "weight", {channels, taps});
  require_threads(threads);
  const int64_t* at = checked_offsets(offsets, tokens);
  const py::ssize_t sequences = offsets.size() - 1;
  const Dims state{sequences, channels, taps - 1};
  const CausalConv1d in{x.data(),
                        row_stride(x),
                        weight.data(),
                        row_stride(weight),
                        input(bias, "bias", {channels}),
                        input(initial_state, "initial_state", state),
                        at,
                        sequences,
                        channels,
                        taps,
                        is_silu,
                        threads};
  return {in, {tokens, channels}, {channels, taps}, {channels}, state};
}

}  // namespace

void bind_causal_conv1d(py::module_& m) {
  m.def(
      "causal_conv1d_forward",
      [](FloatArray out, std::optional<FloatArray> state, const FloatArray& x, const FloatArray& weight,
         const std::optional<FloatArray>& bias, const IndexArray& offsets, bool is_silu,
         const std::optional<FloatArray>& initial_state, int threads) {
        const Checked checked = check(x, weight, bias, offsets, is_silu, initial_state, threads);
        float* to = output(out, "out", checked.x);
        float* last = output(state, "state", checked.state);
        py::gil_scoped_release release;
        causal_conv1d_forward(checked.in, to, last);
      },
      py::arg("out").noconvert(), py::arg("state").noconvert(), py::arg("x").noconvert(),
      py::arg("weight").noconvert(), py::arg("bias").noconvert(), py::arg("offsets").noconvert(), py::arg("is_silu"),
      py::arg("initial_state").noconvert(), py::arg("threads"));
  m.def(
      "causal_conv1d_backward",
      [](FloatArray dx, FloatArray dweight, FloatArray dbias, std::optional<FloatArray> dinitial_state,
         const FloatArray& grad, const std::optional<FloatArray>& grad_state, const FloatArray& x,
         const FloatArray& weight, const std::optional<FloatArray>& bias, const IndexArray& offsets, bool is_silu,
         const std::optional<FloatArray>& initial_state, int threads) {
        const Checked checked = check(x, weight, bias, offsets, is_silu, initial_state, threads);
        require_shape(grad, "grad", checked.x);
        const CausalConv1dGradients gradients{output(dx, "dx", checked.x), output(dweight, "dweight", checked.weight),
                                              output(dbias, "dbias", checked.channels),
                                              output(dinitial_state, "dinitial_state", checked.state)};
        const CausalConv1dResult result{grad.data(), row_stride(grad), input(grad_state, "grad_state", checked.state)};
        py::gil_scoped_release release;
        causal_conv1d_backward(checked.in, result, gradients);
      },
      py::arg("dx").noconvert(), py::arg("dweight").noconvert(), py::arg("dbias").noconvert(),
      py::arg("dinitial_state").noconvert(), py::arg("grad").noconvert(), py::arg("grad_state").noconvert(),
      py::arg("x").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
      py::arg("offsets").noconvert(), py::arg("is_silu"), py::arg("initial_state").noconvert(), py::arg("threads"));
}

}  // namespace uqabench
