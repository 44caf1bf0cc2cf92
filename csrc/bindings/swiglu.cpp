#include "cpu/swiglu.h"

#include "bindings/bind.h"
#include "bindings/rows.h"

namespace uqabench {

namespace {

SwiGLU swiglu_inputs(const FloatArray& gate, const FloatArray& up, int threads) {
  require(gate.ndim() == 2, "gate must have two dimensions.");
  const Dims shape{gate.shape(0), gate.shape(1)};
  require_threads(threads);
  return {rows(gate, "gate", shape), rows(up, "up", shape), shape[0], shape[1], threads};
}

}  // namespace

void bind_swiglu(py::module_& m) {
  m.def(
      "swiglu_forward",
      [](FloatArray y, const FloatArray& gate, const FloatArray& up, int threads) {
        const SwiGLU args = swiglu_inputs(gate, up, threads);
        float* to = output(y, "y", {args.rows, args.width});
        py::gil_scoped_release release;
        swiglu_forward(args, to);
      },
      py::arg("y").noconvert(), py::arg("gate").noconvert(), py::arg("up").noconvert(), py::arg("threads"));
  m.def(
      "swiglu_backward",
      [](FloatArray dgate, FloatArray dup, const FloatArray& grad, const FloatArray& gate, const FloatArray& up,
         int threads) {
        const SwiGLU args = swiglu_inputs(gate, up, threads);
        const Dims shape{args.rows, args.width};
        const RowView grads = rows(grad, "grad", shape);
        float *to_gate = output(dgate, "dgate", shape), *to_up = output(dup, "dup", shape);
        py::gil_scoped_release release;
        swiglu_backward(args, grads, to_gate, to_up);
      },
      py::arg("dgate").noconvert(), py::arg("dup").noconvert(), py::arg("grad").noconvert(),
      py::arg("gate").noconvert(), py::arg("up").noconvert(), py::arg("threads"));
}

}  // namespace uqabench
