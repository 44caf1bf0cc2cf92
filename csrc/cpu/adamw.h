#pragma once

#include <cstdint>

namespace uqabench {

// One step of AdamW, in place, on the rows of a table that a sparse gradient touches. Entry e of the gradient is
// grads[e], the gradient of row ids[e]; the entries of one row are summed in their order. table, exp_avg and
// exp_avg_sq (rows, width) have rows `*_stride` floats apart.
//
// A row first catches up with the steps since its last_step: each moment decays by its beta for every step, and the row
// by exp(decayed - last_decay). `decayed` is the sum of log(1 - lr * weight_decay) over steps 1 .. step; last_decay is
// set to it.
//
// Every id lies in [0, rows); rows and entries < 2^31. The result does not depend on `threads`.
struct SparseAdamW {
  float* table;
  int64_t table_stride;
  float* exp_avg;
  int64_t exp_avg_stride;
  float* exp_avg_sq;
  int64_t exp_avg_sq_stride;
  int64_t* last_step;  // (rows)
  double* last_decay;  // (rows)
  const int64_t* ids;  // (entries)
  const float* grads;  // (entries, width)
  int64_t grads_stride;
  int64_t rows, entries, width, step;
  double decayed, lr, beta1, beta2, eps;
  int threads;
};

void sparse_adamw(const SparseAdamW& args);

}  // namespace uqabench
