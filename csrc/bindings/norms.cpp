#include "bindings/bind.h"
#include "bindings/rows.h"
#include "cpu/norms.h"

namespace uqabench {

namespace {

template <class T>
using Optional = std::optional<Array<T>>;

// The statistics of each row: (2, rows), mean and rstd, or, where the norm is not centred, (1, rows), rstd alone.
void check_statistics(const FloatArray& statistics, int64_t rows) {
  require(statistics.ndim() == 2 && (statistics.shape(0) == 1 || statistics.shape(0) == 2),
          "statistics must have one row or two.");
  require_contiguous(statistics, "statistics", {statistics.shape(0), rows});
}

// What a normalised row is multiplied by: the weight, as one row with stride 0, or the gate, or nothing.
template <class T>
RowView<T> factor(const Optional<T>& weight, const Optional<T>& gate, const Dims& shape) {
  require(!weight || !gate, "weight and gate exclude each other.");
  if (weight) return {input(*weight, "weight", {shape[1]}), 0};
  return rows(gate, "gate", shape);
}

template <class T>
void bind_forward(py::module_& m) {
  m.def(
      "norm_forward",
      [](Array<T> y, Optional<T> sum, FloatArray statistics, const Array<T>& x, const Optional<T>& residual,
         const Optional<T>& weight, const Optional<T>& bias, const Optional<T>& gate, double eps, int threads) {
        require(x.ndim() == 2, "x must have two dimensions.");
        const Dims shape{x.shape(0), x.shape(1)};
        require(sum.has_value() == residual.has_value(), "sum and residual need each other.");
        require_threads(threads);
        check_statistics(statistics, shape[0]);
        const bool is_centred = statistics.shape(0) == 2;
        float* mean = statistics.mutable_data();
        const Norm<T> norm{rows(x, "x", shape),
                           rows(residual, "residual", shape),
                           factor(weight, gate, shape),
                           input(bias, "bias", {shape[1]}),
                           shape[0],
                           shape[1],
                           static_cast<float>(eps),
                           threads};
        const NormResult<T> result{output(y, "y", shape), output(sum, "sum", shape), is_centred ? mean : nullptr,
                                   is_centred ? mean + shape[0] : mean};
        py::gil_scoped_release release;
        norm_forward(norm, result);
      },
      py::arg("y").noconvert(), py::arg("sum").noconvert(), py::arg("statistics").noconvert(), py::arg("x").noconvert(),
      py::arg("residual").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
      py::arg("gate").noconvert(), py::arg("eps"), py::arg("threads"));
}

template <class T>
void bind_backward(py::module_& m) {
  m.def(
      "norm_backward",
      [](Array<T> dx, Optional<T> dgate, Optional<T> dweight, Optional<T> dbias, const Array<T>& grad,
         const Optional<T>& grad_sum, const Array<T>& x, const FloatArray& statistics, const Optional<T>& weight,
         const Optional<T>& gate, int threads) {
        require(x.ndim() == 2, "x must have two dimensions.");
        const Dims shape{x.shape(0), x.shape(1)};
        require(!dgate || gate, "dgate needs a gate.");
        require(!dweight || weight, "dweight needs a weight.");
        require_threads(threads);
        check_statistics(statistics, shape[0]);
        const bool is_centred = statistics.shape(0) == 2;
        const float* mean = statistics.data();
        const NormBackward<T> norm{rows(grad, "grad", shape),
                                   rows(grad_sum, "grad_sum", shape),
                                   rows(x, "x", shape),
                                   factor(weight, gate, shape),
                                   is_centred ? mean : nullptr,
                                   is_centred ? mean + shape[0] : mean,
                                   shape[0],
                                   shape[1],
                                   threads};
        const NormGradients<T> gradients{output(dx, "dx", shape), output(dgate, "dgate", shape),
                                         output(dweight, "dweight", {shape[1]}), output(dbias, "dbias", {shape[1]})};
        py::gil_scoped_release release;
        norm_backward(norm, gradients);
      },
      py::arg("dx").noconvert(), py::arg("dgate").noconvert(), py::arg("dweight").noconvert(),
      py::arg("dbias").noconvert(), py::arg("grad").noconvert(), py::arg("grad_sum").noconvert(),
      py::arg("x").noconvert(), py::arg("statistics").noconvert(), py::arg("weight").noconvert(),
      py::arg("gate").noconvert(), py::arg("threads"));
}

}  // namespace

void bind_norms(py::module_& m) {
  bind_forward<float>(m);
  bind_forward<Bf16>(m);
  bind_backward<float>(m);
  bind_backward<Bf16>(m);
}

}  // namespace uqabench
