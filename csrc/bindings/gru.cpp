#include "cpu/gru.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

GruLayer checked_layer(const FloatArray& weight, const std::optional<FloatArray>& h0, const IndexArray& offsets,
                       int64_t tokens, int threads) {
  require(weight.ndim() == 2, "w_hh must have two dimensions.");
  GruLayer layer{};
  layer.hidden = weight.shape(1);
  require_shape(weight, "w_hh", {3 * layer.hidden, layer.hidden});
  layer.weight = weight.data();
  layer.weight_stride = row_stride(weight);
  layer.offsets = checked_offsets(offsets, tokens);
  layer.sequences = offsets.size() - 1;
  if (h0) {
    require_shape(*h0, "h0", {layer.sequences, layer.hidden});
    layer.h0 = h0->data();
    layer.h0_stride = row_stride(*h0);
  }
  require_threads(threads);
  layer.threads = threads;
  return layer;
}

}  // namespace

void bind_gru(py::module_& m) {
  m.def(
      "gru_forward",
      [](FloatArray out, std::optional<FloatArray> state, std::optional<FloatArray> gates,
         std::optional<FloatArray> recurrent_new, const FloatArray& inputs, const FloatArray& weight,
         const std::optional<FloatArray>& bias, const IndexArray& offsets, const std::optional<FloatArray>& h0,
         int threads) {
        require(inputs.ndim() == 2, "inputs must have two dimensions.");
        const py::ssize_t tokens = inputs.shape(0);
        const GruLayer layer = checked_layer(weight, h0, offsets, tokens, threads);
        const py::ssize_t hidden = layer.hidden;
        require_shape(inputs, "inputs", {tokens, 3 * hidden});
        require(gates.has_value() == recurrent_new.has_value(), "gates and recurrent_new go together.");
        const GruForward pass{inputs.data(),
                              row_stride(inputs),
                              input(bias, "b_hh", {3 * hidden}),
                              output(out, "out", {tokens, hidden}),
                              output(state, "state", {layer.sequences, hidden}),
                              output(gates, "gates", {tokens, 3 * hidden}),
                              output(recurrent_new, "recurrent_new", {tokens, hidden})};
        py::gil_scoped_release release;
        gru_forward(layer, pass);
      },
      py::arg("out").noconvert(), py::arg("state").noconvert().none(true), py::arg("gates").noconvert().none(true),
      py::arg("recurrent_new").noconvert().none(true), py::arg("inputs").noconvert(), py::arg("w_hh").noconvert(),
      py::arg("b_hh").noconvert().none(true), py::arg("offsets").noconvert(), py::arg("h0").noconvert().none(true),
      py::arg("threads"));
  m.def(
      "gru_backward",
      [](FloatArray d_inputs, FloatArray d_recurrent, FloatArray previous, FloatArray d_state,
         const std::optional<FloatArray>& grad_out, const FloatArray& out, const FloatArray& gates,
         const FloatArray& recurrent_new, const FloatArray& weight, const IndexArray& offsets,
         const std::optional<FloatArray>& h0, bool to_h0, int threads) {
        require(out.ndim() == 2, "out must have two dimensions.");
        const py::ssize_t tokens = out.shape(0);
        const GruLayer layer = checked_layer(weight, h0, offsets, tokens, threads);
        const py::ssize_t hidden = layer.hidden;
        const Dims narrow{tokens, hidden}, wide{tokens, 3 * hidden};
        const GruBackward pass{input(grad_out, "grad_out", narrow),
                               input(out, "out", narrow),
                               input(gates, "gates", wide),
                               input(recurrent_new, "recurrent_new", narrow),
                               output(d_inputs, "d_inputs", wide),
                               output(d_recurrent, "d_recurrent", wide),
                               output(previous, "previous", narrow),
                               output(d_state, "d_state", {layer.sequences, hidden}),
                               to_h0};
        py::gil_scoped_release release;
        gru_backward(layer, pass);
      },
      py::arg("d_inputs").noconvert(), py::arg("d_recurrent").noconvert(), py::arg("previous").noconvert(),
      py::arg("d_state").noconvert(), py::arg("grad_out").noconvert().none(true), py::arg("out").noconvert(),
      py::arg("gates").noconvert(), py::arg("recurrent_new").noconvert(), py::arg("w_hh").noconvert(),
      py::arg("offsets").noconvert(), py::arg("h0").noconvert().none(true), py::arg("to_h0"), py::arg("threads"));
}

}  // namespace uqabench
