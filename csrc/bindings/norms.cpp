#include "cpu/norms.h"

#include "bindings/bind.h"
#include "bindings/rows.h"

namespace uqabench {

namespace {

using OptionalFloats = std::optional<FloatArray>;

// The statistics of each row: (2, rows), mean and rstd, or (1, rows), rstd alone, where the norm is not centred.
void check_statistics(const FloatArray& statistics, int64_t rows) {
  require(statistics.ndim() == 2 && (statistics.shape(0) == 1 || statistics.shape(0) == 2),
          "statistics must have one row or two.");
  require_contiguous(statistics, "statistics", {statistics.shape(0), rows});
}

// The weight, the same row again and again, or the gate, or neither.
RowView factor(const OptionalFloats& weight, const OptionalFloats& gate, const Dims& shape) {
  require(!weight || !gate, "weight and gate exclude each other.");
  if (weight) return {input(*weight, "weight", {shape[1]}), 0};
  return rows(gate, "gate", shape);
}

void bind_forward(py::module_& m) {
  m.def(
      "norm_forward",
      [](FloatArray y, OptionalFloats sum, FloatArray statistics, const FloatArray& x, const OptionalFloats& residual,
         const OptionalFloats& weight, const OptionalFloats& bias, const OptionalFloats& gate, double eps,
         int threads) {
        require(x.ndim() == 2, "x must have two dimensions.");
        const Dims shape{x.shape(0), x.shape(1)};
        require(sum.has_value() == residual.has_value(), "sum and residual need each other.");
        require_threads(threads);
        check_statistics(statistics, shape[0]);
        const bool is_centred = statistics.shape(0) == 2;
        float* mean = statistics.mutable_data();
        const Norm norm{rows(x, "x", shape),
                        rows(residual, "residual", shape),
                        factor(weight, gate, shape),
                        input(bias, "bias", {shape[1]}),
                        shape[0],
                        shape[1],
                        static_cast<float>(eps),
                        threads};
        const NormResult result{output(y, "y", shape), output(sum, "sum", shape), is_centred ? mean : nullptr,
                                is_centred ? mean + shape[0] : mean};
        py::gil_scoped_release release;
        norm_forward(norm, result);
      },
      py::arg("y").noconvert(), py::arg("sum").noconvert(), py::arg("statistics").noconvert(), py::arg("x").noconvert(),
      py::arg("residual").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
      py::arg("gate").noconvert(), py::arg("eps"), py::arg("threads"));
}

void bind_backward(py::module_& m) {
  m.def(
      "norm_backward",
      [](FloatArray dx, OptionalFloats dgate, OptionalFloats dweight, OptionalFloats dbias, const FloatArray& grad,
         const OptionalFloats& grad_sum, const FloatArray& x, const FloatArray& statistics,
         const OptionalFloats& weight, const OptionalFloats& gate, int threads) {
        require(x.ndim() == 2, "x must have two dimensions.");
        const Dims shape{x.shape(0), x.shape(1)};
        require(!dgate || gate, "dgate needs a gate.");
        require(!dweight || weight, "dweight needs a weight.");
        require_threads(threads);
        check_statistics(statistics, shape[0]);
        const bool is_centred = statistics.shape(0) == 2;
        const float* mean = statistics.data();
        const NormBackward norm{rows(grad, "grad", shape),
                                rows(grad_sum, "grad_sum", shape),
                                rows(x, "x", shape),
                                factor(weight, gate, shape),
                                is_centred ? mean : nullptr,
                                is_centred ? mean + shape[0] : mean,
                                shape[0],
                                shape[1],
                                threads};
        const NormGradients gradients{output(dx, "dx", shape), output(dgate, "dgate", shape),
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
  bind_forward(m);
  bind_backward(m);
}

}  // namespace uqabench
