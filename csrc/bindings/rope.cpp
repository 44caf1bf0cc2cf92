#include "cpu/rope.h"

#include "bindings/attention.h"
#include "bindings/bind.h"

namespace uqabench {

namespace {

int64_t longest(const int64_t* offsets, int64_t sequences) {
  int64_t longest = 0;
  for (int64_t b = 0; b < sequences; ++b) longest = std::max(longest, offsets[b + 1] - offsets[b]);
  return longest;
}

template <class T>
void bind_rope_of(py::module_& m) {
  m.def(
      "rope",
      [](Array<T> q_out, Array<T> k_out, const Array<T>& q, const Array<T>& k, const FloatArray& table,
         const IndexArray& offsets, bool is_inverse, int threads) {
        require(q.ndim() == 3 && k.ndim() == 3 && table.ndim() == 2, "q and k must have three dimensions, table two.");
        const Dims q_shape(q.shape(), q.shape() + 3), k_shape{q.shape(0), k.shape(1), q.shape(2)};
        require(q_shape[2] % 2 == 0, "q must have an even last dimension.");
        require_shape(q, "q", q_shape);
        require_shape(k, "k", k_shape);
        const float* angles = input(table, "table", {table.shape(0), q_shape[2]});
        const int64_t* starts = checked_offsets(offsets, q_shape[0]);
        const int64_t sequences = offsets.size() - 1;
        require(longest(starts, sequences) <= table.shape(0), "table has fewer rows than the longest sequence tokens.");
        require_threads(threads);
        const Rope<T> args{heads(q), heads(k), q_shape[1], k_shape[1],  q_shape[2],
                           angles,   starts,   sequences,  is_inverse, threads};
        T *to_q = output(q_out, "q_out", q_shape), *to_k = output(k_out, "k_out", k_shape);
        py::gil_scoped_release release;
        rope(args, to_q, to_k);
      },
      py::arg("q_out").noconvert(), py::arg("k_out").noconvert(), py::arg("q").noconvert(), py::arg("k").noconvert(),
      py::arg("table").noconvert(), py::arg("offsets").noconvert(), py::arg("is_inverse"), py::arg("threads"));
}

}  // namespace

void bind_rope(py::module_& m) {
  bind_rope_of<float>(m);
  bind_rope_of<Bf16>(m);
}

}  // namespace uqabench
