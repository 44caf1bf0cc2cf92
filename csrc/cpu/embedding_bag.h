#pragma once

#include <cstdint>

#include "cpu/bf16.h"

namespace uqabench {

// Bags of ids into a table of `rows` rows, `width` numbers each: bag b is ids[offsets[b]] to ids[offsets[b + 1] - 1].
// offsets (bags + 1), checked: from 0 to the number of ids, never falling; every id lies in [0, rows), bags < 2^31.
struct EmbeddingBags {
  const int64_t* ids;
  const int64_t* offsets;
  int64_t bags, rows, width;
  int threads;
};

// out (bags, width), contiguous: the mean of each bag's rows of `table` (rows `table_stride` numbers apart), zero for
// an empty bag. Results do not depend on `threads`, here and below. T: float or Bf16; sums are floats, rounded once.
template <class T>
void embedding_bag_mean(const EmbeddingBags& in, const T* table, int64_t table_stride, T* out);

// gradient (rows, width), contiguous and written in full, from that of the means (rows `grad_stride` numbers apart).
template <class T>
void embedding_bag_mean_backward(const EmbeddingBags& in, const T* grad, int64_t grad_stride, T* gradient);

// values (ids, width), contiguous: what each id adds to the gradient of its row.
template <class T>
void embedding_bag_mean_values(const EmbeddingBags& in, const T* grad, int64_t grad_stride, T* values);

}  // namespace uqabench
