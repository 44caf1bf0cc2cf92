#include "cpu/linear_rank.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {

void bind_linear_rank(py::module_& m) {
  m.def(
      "linear_rank",
      [](IntArray rank, const FloatArray& hidden, const FloatArray& weight, const IndexArray& target, int threads) {
        require(hidden.ndim() == 2 && weight.ndim() == 2, "hidden and weight must have two dimensions.");
        const py::ssize_t tokens = hidden.shape(0), width = hidden.shape(1), items = weight.shape(0);
        require_shape(hidden, "hidden", {tokens, width});
        require_shape(weight, "weight", {items, width});
        require_shape(rank, "rank", {tokens});
        require_threads(threads);
        require(items < std::numeric_limits<int32_t>::max(), "weight must have fewer than 2^31 - 1 rows.");
        const LinearRank args{hidden.data(),
                              row_stride(hidden),
                              weight.data(),
                              row_stride(weight),
                              checked_indices(target, "target", tokens, items),
                              rank.mutable_data(),
                              tokens,
                              items,
                              width,
                              threads};
        py::gil_scoped_release release;
        linear_rank(args);
      },
      py::arg("rank").noconvert(), py::arg("hidden").noconvert(), py::arg("weight").noconvert(),
      py::arg("target").noconvert(), py::arg("threads"));
}

}  // namespace uqabench
