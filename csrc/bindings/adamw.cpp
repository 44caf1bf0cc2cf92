#include "cpu/adamw.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

// The row stride, in elements, of an array that is written. Its rows must not overlap: threads would race for them.
int64_t written_stride(const FloatArray& x, const char* name, py::ssize_t rows, py::ssize_t width) {
  require_shape(x, name, {rows, width});
  require(rows <= 1 || row_stride(x) >= width, std::string(name) + "'s rows must not overlap.");
  return row_stride(x);
}

}  // namespace

void bind_adamw(py::module_& m) {
  m.def(
      "sparse_adamw",
      [](FloatArray table, FloatArray exp_avg, FloatArray exp_avg_sq, IntArray last_step, Array<double> last_decay,
         const IndexArray& ids, const FloatArray& grads, int64_t step, double decayed, double lr, double beta1,
         double beta2, double eps, int threads) {
        require(table.ndim() == 2 && ids.ndim() == 1, "table must have two dimensions and ids one.");
        const py::ssize_t rows = table.shape(0), width = table.shape(1), entries = ids.size();
        require(std::max(rows, entries) < std::numeric_limits<int32_t>::max(),
                "table and ids must have fewer than 2^31 - 1 rows.");
        const int64_t table_stride = written_stride(table, "table", rows, width);
        const int64_t exp_avg_stride = written_stride(exp_avg, "exp_avg", rows, width);
        const int64_t exp_avg_sq_stride = written_stride(exp_avg_sq, "exp_avg_sq", rows, width);
        require_shape(last_step, "last_step", {rows});
        require_shape(last_decay, "last_decay", {rows});
        require_shape(grads, "grads", {entries, width});
        require_threads(threads);
        const SparseAdamW args{table.mutable_data(), table_stride,
                               exp_avg.mutable_data(), exp_avg_stride,
                               exp_avg_sq.mutable_data(), exp_avg_sq_stride,
                               last_step.mutable_data(), last_decay.mutable_data(),
                               checked_indices(ids, "ids", entries, rows), grads.data(), row_stride(grads),
                               rows, entries, width, step,
                               decayed, lr, beta1, beta2, eps,
                               threads};
        py::gil_scoped_release release;
        sparse_adamw(args);
      },
      py::arg("table").noconvert(), py::arg("exp_avg").noconvert(), py::arg("exp_avg_sq").noconvert(),
      py::arg("last_step").noconvert(), py::arg("last_decay").noconvert(), py::arg("ids").noconvert(),
      py::arg("grads").noconvert(), py::arg("step"), py::arg("decayed"), py::arg("lr"), py::arg("beta1"),
      py::arg("beta2"), py::arg("eps"), py::arg("threads"));
}

}  // namespace uqabench
