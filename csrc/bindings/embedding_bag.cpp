#include "cpu/embedding_bag.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

EmbeddingBags check(const IndexArray& ids, const IndexArray& offsets, int64_t rows, int64_t width, int threads) {
  require_threads(threads);
  require(ids.ndim() == 1, "ids must have one dimension.");
  const int64_t* indices = checked_indices(ids, "ids", ids.size(), rows);
  const int64_t* at = checked_offsets(offsets, ids.size());
  require(offsets.size() <= std::numeric_limits<int32_t>::max(), "offsets must have fewer than 2^31 entries.");
  return {indices, at, offsets.size() - 1, rows, width, threads};
}

// As above for a backward pass, whose width is that of the gradient of the means.
template <class T>
EmbeddingBags check_gradient(const Array<T>& grad, const IndexArray& ids, const IndexArray& offsets, int64_t rows,
                             int threads) {
  require(grad.ndim() == 2, "grad must have two dimensions.");
  const EmbeddingBags in = check(ids, offsets, rows, grad.shape(1), threads);
  require_shape(grad, "grad", {in.bags, in.width});
  return in;
}

template <class T>
void bind_embedding_bag_of(py::module_& m) {
  m.def(
      "embedding_bag_mean",
      [](Array<T> out, const Array<T>& table, const IndexArray& ids, const IndexArray& offsets, int threads) {
        require(table.ndim() == 2, "table must have two dimensions.");
        require_shape(table, "table", {table.shape(0), table.shape(1)});
        const EmbeddingBags in = check(ids, offsets, table.shape(0), table.shape(1), threads);
        T* to = output(out, "out", {in.bags, in.width});
        py::gil_scoped_release release;
        embedding_bag_mean(in, table.data(), row_stride(table), to);
      },
      py::arg("out").noconvert(), py::arg("table").noconvert(), py::arg("ids").noconvert(),
      py::arg("offsets").noconvert(), py::arg("threads"));
  m.def(
      "embedding_bag_mean_backward",
      [](Array<T> gradient, const Array<T>& grad, const IndexArray& ids, const IndexArray& offsets, int threads) {
        require(gradient.ndim() == 2, "gradient must have two dimensions.");
        const EmbeddingBags in = check_gradient(grad, ids, offsets, gradient.shape(0), threads);
        T* to = output(gradient, "gradient", {in.rows, in.width});
        py::gil_scoped_release release;
        embedding_bag_mean_backward(in, grad.data(), row_stride(grad), to);
      },
      py::arg("gradient").noconvert(), py::arg("grad").noconvert(), py::arg("ids").noconvert(),
      py::arg("offsets").noconvert(), py::arg("threads"));
  m.def(
      "embedding_bag_mean_values",
      [](Array<T> values, const Array<T>& grad, const IndexArray& ids, const IndexArray& offsets, int threads) {
        const EmbeddingBags in =
            check_gradient(grad, ids, offsets, std::numeric_limits<int64_t>::max(), threads);  // no table is indexed
        T* to = output(values, "values", {ids.size(), in.width});
        py::gil_scoped_release release;
        embedding_bag_mean_values(in, grad.data(), row_stride(grad), to);
      },
      py::arg("values").noconvert(), py::arg("grad").noconvert(), py::arg("ids").noconvert(),
      py::arg("offsets").noconvert(), py::arg("threads"));
}

}  // namespace

void bind_embedding_bag(py::module_& m) {
  bind_embedding_bag_of<float>(m);
  bind_embedding_bag_of<Bf16>(m);
}

}  // namespace uqabench
