#pragma once

#include <cstdint>

#include "cpu/bf16.h"

namespace uqabench {

// Bags of row indices of a table (rows, width): bag b is ids[offsets[b]] to ids[offsets[b + 1] - 1]. offsets (bags + 1)
// are monotone from 0 to the number of ids, every id lies in [0, rows), and bags < 2^31.
struct EmbeddingBags {
  const int64_t* ids;
  const int64_t* offsets;
  int64_t bags, rows, width;
  int threads;
};

// out (bags, width), contiguous: the mean of each bag's rows of `table`, whose rows lie `table_stride` elements apart;
// zero for an empty bag. Here and below the results do not depend on `threads`. T: float or Bf16, accumulated in float
// and rounded once.
template <class T>
void embedding_bag_mean(const EmbeddingBags& in, const T* table, int64_t table_stride, T* out);

// gradient (rows, width), contiguous and written in full: the table's gradient, given `grad` (bags, width), that of the
// means, whose rows lie `grad_stride` elements apart.
template <class T>
void embedding_bag_mean_backward(const EmbeddingBags& in, const T* grad, int64_t grad_stride, T* gradient);

// values (ids, width), contiguous: what each id contributes to its row's gradient, as a sparse gradient stores it.
template <class T>
void embedding_bag_mean_values(const EmbeddingBags& in, const T* grad, int64_t grad_stride, T* values);

}  // namespace uqabench
