#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/adamw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"

namespace uqabench {
namespace {

// The entries of the gradient sorted by row: entry e of row r is represented by r * 2^32 + e.
using Entries = std::vector<uint64_t>;

// A radix sort by row. It is stable: the entries of a row keep their order.
Entries sorted_entries(const SparseAdamW& args) {
  constexpr int bits = 11;
  constexpr uint64_t digits = 1 << bits;
  Entries entries(args.entries), other(args.entries);
  for (int64_t e = 0; e < args.entries; ++e) entries[e] = static_cast<uint64_t>(args.ids[e]) << 32 | e;
  for (int digit = 0; (args.rows - 1) >> digit > 0; digit += bits) {
    std::array<int64_t, digits + 1> begin{};
    for (uint64_t entry : entries) ++begin[(entry >> (32 + digit)) % digits + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (uint64_t entry : entries) other[begin[(entry >> (32 + digit)) % digits]++] = entry;
    entries.swap(other);
  }
  return entries;
}

// The index at which each row's entries begin, and the number of all entries at the end.
std::vector<int64_t> row_starts(const Entries& entries) {
  std::vector<int64_t> starts;
  const int64_t count = entries.size();
  for (int64_t i = 0; i < count; ++i) {
    if (i == 0 || entries[i] >> 32 != entries[i - 1] >> 32) starts.push_back(i);
  }
  starts.push_back(count);
  return starts;
}

}  // namespace
}  // namespace uqabench

#define UQ_SOURCE "cpu/adamw.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void sparse_adamw(const SparseAdamW& args) {
  static constexpr decltype(&baseline::update_rows) kernel[] = UQ_TABLE(update_rows);
  if (args.entries == 0) return;
  const Entries entries = sorted_entries(args);
  const std::vector<int64_t> starts = row_starts(entries);
  kernel[static_cast<int>(current_isa())](args, entries, starts);
}

}  // namespace uqabench
#else

#include "cpu/simd.h"
#include "cpu/functions.h"

namespace uqabench::UQ_ISA {
namespace {

// The coefficients of a step on one row: first the moments, m = keep1 m + add1 g and v = keep2 v + add2 g^2, then the
// row, p = decay p - rate m / (sqrt(v) scale + eps).
struct RowStep {
  float keep1, add1, keep2, add2, decay, rate, scale, eps;
};

// The sum of a row's gradients in `sum`, or, where there is only one, that gradient itself.
inline const float* summed(const SparseAdamW& args, const uint64_t* entry, const uint64_t* end, float* sum) {
  const float* first = args.grads + static_cast<uint32_t>(*entry) * args.grads_stride;
  if (entry + 1 == end) return first;
  std::copy(first, first + args.width, sum);
  while (++entry != end) {
    const float* next = args.grads + static_cast<uint32_t>(*entry) * args.grads_stride;
    for_each_vector(args.width, [&](auto get, auto put) { put(sum, get(sum) + get(next)); });
  }
  return sum;
}

inline void update_row(const RowStep& step, int64_t width, const float* grad, float* p, float* m, float* v) {
  for_each_vector(width, [&](auto get, auto put) {
    const Floats g = get(grad);
    const Floats mean = multiply_add(get(m), broadcast(step.keep1), g * step.add1);
    const Floats square = multiply_add(get(v), broadcast(step.keep2), g * g * step.add2);
    const Floats size = multiply_add(square_root(square), broadcast(step.scale), broadcast(step.eps));
    put(m, mean);
    put(v, square);
    put(p, get(p) * step.decay - mean * step.rate / size);
  });
}

// Rows are far apart in memory: prefetching one while another is computed hides part of the latency. Always inlined,
// because GCC drops calls to functions that only prefetch.
UQ_INLINE void prefetch(const float* row, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(row + i, 1);
}

UQ_INLINE void prefetch_row(const SparseAdamW& args, uint64_t entry) {
  const int64_t row = entry >> 32;
  prefetch(args.table + row * args.table_stride, args.width);
  prefetch(args.exp_avg + row * args.exp_avg_stride, args.width);
  prefetch(args.exp_avg_sq + row * args.exp_avg_sq_stride, args.width);
  prefetch(args.grads + static_cast<uint32_t>(entry) * args.grads_stride, args.width);
  __builtin_prefetch(args.last_step + row, 1);
  __builtin_prefetch(args.last_decay + row, 1);
}

inline void update_rows(const SparseAdamW& args, const Entries& entries, const std::vector<int64_t>& starts) {
  const double correction1 = 1 - std::pow(args.beta1, args.step), correction2 = 1 - std::pow(args.beta2, args.step);
  RowStep common{};
  common.add1 = static_cast<float>(1 - args.beta1);
  common.add2 = static_cast<float>(1 - args.beta2);
  common.rate = static_cast<float>(args.lr / correction1);
  common.scale = static_cast<float>(1 / std::sqrt(correction2));
  common.eps = static_cast<float>(args.eps);

  constexpr int64_t rows_a_task = 64, ahead = 2;
  const int64_t touched = starts.size() - 1, tasks = (touched + rows_a_task - 1) / rows_a_task;
  parallel_for(tasks, args.threads, args.width, [&](int64_t task, float* sum) {
    const int64_t end = std::min(touched, (task + 1) * rows_a_task);
    for (int64_t i = task * rows_a_task; i < end; ++i) {
      if (i + ahead < end) prefetch_row(args, entries[starts[i + ahead]]);
      const uint64_t* const entry = entries.data() + starts[i];
      const int64_t row = *entry >> 32;
      const double steps = static_cast<double>(args.step - args.last_step[row]);
      RowStep step = common;
      step.keep1 = static_cast<float>(std::pow(args.beta1, steps));
      step.keep2 = static_cast<float>(std::pow(args.beta2, steps));
      step.decay = static_cast<float>(std::exp(args.decayed - args.last_decay[row]));
      args.last_step[row] = args.step;
      args.last_decay[row] = args.decayed;
      update_row(step, args.width, summed(args, entry, entries.data() + starts[i + 1], sum),
                 args.table + row * args.table_stride, args.exp_avg + row * args.exp_avg_stride,
                 args.exp_avg_sq + row * args.exp_avg_sq_stride);
    }
  });
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
