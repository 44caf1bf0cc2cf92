#include "bindings/bind.h"
#include "bindings/rows.h"
#include "cpu/swiglu.h"

namespace uqabench {

namespace {

template <class T>
SwiGLU<T> swiglu_inputs(const Array<T>& gate, const Array<T>& up, int threads) {
  require(gate.ndim() == 2, "gate must have two dimensions.");
  const Dims shape{gate.shape(0), gate.shape(1)};
  require_threads(threads);
  return {rows(gate, "gate", shape), rows(up, "up", shape), shape[0], shape[1], threads};
}

template <class T>
void bind_swiglu_of(py::module_& m) {
  m.def(
      "swiglu_forward",
      [](Array<T> y, const Array<T>& gate, const Array<T>& up, int threads) {
        const SwiGLU<T> args = swiglu_inputs(gate, up, threads);
        T* to = output(y, "y", {args.rows, args.width});
        py::gil_scoped_release release;
        swiglu_forward(args, to);
      },
      py::arg("y").noconvert(), py::arg("gate").noconvert(), py::arg("up").noconvert(), py::arg("threads"));
  m.def(
      "swiglu_backward",
      [](Array<T> dgate, Array<T> dup, const Array<T>& grad, const Array<T>& gate, const Array<T>& up, int threads) {
        const SwiGLU<T> args = swiglu_inputs(gate, up, threads);
        const Dims shape{args.rows, args.width};
        const RowView<T> grads = rows(grad, "grad", shape);
        T *to_gate = output(dgate, "dgate", shape), *to_up = output(dup, "dup", shape);
        py::gil_scoped_release release;
        swiglu_backward(args, grads, to_gate, to_up);
      },
      py::arg("dgate").noconvert(), py::arg("dup").noconvert(), py::arg("grad").noconvert(),
      py::arg("gate").noconvert(), py::arg("up").noconvert(), py::arg("threads"));
}

}  // namespace

void bind_swiglu(py::module_& m) {
  bind_swiglu_of<float>(m);
  bind_swiglu_of<Bf16>(m);
}

}  // namespace uqabench
