#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/embedding_bag.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cpu/memory.h"
#include "cpu/parallel.h"

namespace uqabench {
namespace {

constexpr int64_t bags_each = 64;            // bags of a task
constexpr int64_t block_floats = 32 * 1024;  // elements of the table's gradient in a task: half an L2 cache

// One id: the index of its row in its block of the table, and its bag.
struct Entry {
  int32_t row, bag;
};

// The ids sorted by block of `rows_each` rows. Within a block they keep their order, and so do the terms of each row's
// sum.
struct Blocks {
  int64_t rows_each;
  std::vector<int64_t> starts;  // blocks + 1
  std::vector<Entry> entries;

  explicit Blocks(const EmbeddingBags& in)
      : rows_each(std::max<int64_t>(1, block_floats / std::max<int64_t>(1, in.width))),
        starts((in.rows + rows_each - 1) / rows_each + 1, 0),
        entries(in.offsets[in.bags]) {
    for (int64_t i = 0; i < in.offsets[in.bags]; ++i) ++starts[in.ids[i] / rows_each + 1];
    for (size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
    std::vector<int64_t> next(starts.begin(), starts.end());
    for (int64_t bag = 0; bag < in.bags; ++bag) {
      for (int64_t i = in.offsets[bag]; i < in.offsets[bag + 1]; ++i) {
        const int64_t block = in.ids[i] / rows_each;
        entries[next[block]++] = {static_cast<int32_t>(in.ids[i] - block * rows_each), static_cast<int32_t>(bag)};
      }
    }
  }
  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }
};

}  // namespace
}  // namespace uqabench

#define UQ_SOURCE "cpu/embedding_bag.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {
namespace {

// Calls kernel(bag) for every bag, `bags_each` to a task.
template <class Kernel>
void for_each_bag(const EmbeddingBags& in, const Kernel& kernel) {
  parallel_for((in.bags + bags_each - 1) / bags_each, in.threads, 0, [&](int64_t task, float*) {
    const int64_t end = std::min(in.bags, (task + 1) * bags_each);
    for (int64_t bag = task * bags_each; bag < end; ++bag) kernel(bag);
  });
}

}  // namespace

template <class T>
void embedding_bag_mean(const EmbeddingBags& in, const T* table, int64_t table_stride, T* out) {
  static constexpr decltype(&baseline::mean<T>) kernels[] = UQ_TABLE(mean<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  expect_writes(out, in.bags * in.width);
  for_each_bag(in, [&](int64_t bag) { kernel(in, bag, table, table_stride, out); });
}

template <class T>
void embedding_bag_mean_backward(const EmbeddingBags& in, const T* grad, int64_t grad_stride, T* gradient) {
  static constexpr decltype(&baseline::add_block<T>) kernels[] = UQ_TABLE(add_block<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  const Blocks blocks(in);
  expect_writes(gradient, in.rows * in.width);
  parallel_for(blocks.count(), in.threads, std::is_same_v<T, float> ? 0 : blocks.rows_each * in.width,
               [&](int64_t block, float* sums) { kernel(in, blocks, block, grad, grad_stride, sums, gradient); });
}

template <class T>
void embedding_bag_mean_values(const EmbeddingBags& in, const T* grad, int64_t grad_stride, T* values) {
  static constexpr decltype(&baseline::spread<T>) kernels[] = UQ_TABLE(spread<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  expect_writes(values, in.offsets[in.bags] * in.width);
  for_each_bag(in, [&](int64_t bag) { kernel(in, bag, grad + bag * grad_stride, values); });
}

template void embedding_bag_mean(const EmbeddingBags&, const float*, int64_t, float*);
template void embedding_bag_mean(const EmbeddingBags&, const Bf16*, int64_t, Bf16*);
template void embedding_bag_mean_backward(const EmbeddingBags&, const float*, int64_t, float*);
template void embedding_bag_mean_backward(const EmbeddingBags&, const Bf16*, int64_t, Bf16*);
template void embedding_bag_mean_values(const EmbeddingBags&, const float*, int64_t, float*);
template void embedding_bag_mean_values(const EmbeddingBags&, const Bf16*, int64_t, Bf16*);

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

constexpr int64_t ahead = 16;  // how many rows ahead to prefetch, as they lie anywhere in memory
constexpr int vectors_at_once = 64 / lanes < 8 ? 64 / lanes : 8;  // vectors accumulated in registers

template <class T>
UQ_INLINE void prefetch(const T* row, int64_t width) {
  constexpr int64_t line = 64 / sizeof(T);  // elements of a cache line
  for (int64_t c = 0; c < width; c += line) __builtin_prefetch(row + c);
}

template <class T>
void mean(const EmbeddingBags& in, int64_t bag, const T* table, int64_t stride, T* out) {
  const int64_t begin = in.offsets[bag], end = in.offsets[bag + 1];
  const int64_t known = std::min(end + ahead, in.offsets[in.bags]);
  for (int64_t i = begin + ahead; i < known; ++i) prefetch(table + in.ids[i] * stride, in.width);
  const Floats share = broadcast(end > begin ? 1.0f / static_cast<float>(end - begin) : 0.0f);
  T* to = out + bag * in.width;
  int64_t c = 0;
  for (; c + vectors_at_once * lanes <= in.width; c += vectors_at_once * lanes) {
    Floats sums[vectors_at_once] = {};
    for (int64_t i = begin; i < end; ++i) {
      const T* row = table + in.ids[i] * stride + c;
      for (int v = 0; v < vectors_at_once; ++v) sums[v] += load(row + v * lanes);
    }
    for (int v = 0; v < vectors_at_once; ++v) store(to + c + v * lanes, sums[v] * share);
  }
  for_each_vector(in.width - c, [=](const auto& get, const auto& put) {
    Floats sum = {};
    for (int64_t i = begin; i < end; ++i) sum += get(table + in.ids[i] * stride + c);
    put(to + c, sum * share);
  });
}

// Computes the rows of one block of the gradient: zeroes them and adds to them while they are in the cache. Rows that
// are not floats are accumulated in `sums` and rounded at the end.
template <class T>
void add_block(const EmbeddingBags& in, const Blocks& blocks, int64_t block, const T* grad, int64_t stride, float* sums,
               T* gradient) {
  const int64_t first = block * blocks.rows_each, last = std::min(in.rows, first + blocks.rows_each);
  const int64_t width = in.width, end = blocks.starts[block + 1];
  const Entry* entries = blocks.entries.data();
  T* written = gradient + first * width;
  float* rows = sums;
  if constexpr (std::is_same_v<T, float>) rows = written;
  std::fill_n(rows, (last - first) * width, 0.0f);
  for (int64_t i = blocks.starts[block]; i < end; ++i) {
    if (i + ahead < end) prefetch(grad + entries[i + ahead].bag * stride, width);
    const int64_t bag = entries[i].bag;
    const Floats share = broadcast(1.0f / static_cast<float>(in.offsets[bag + 1] - in.offsets[bag]));
    const T* from = grad + bag * stride;
    float* to = rows + entries[i].row * width;
    for_each_vector(width, [=](const auto& get, const auto& put) { put(to, multiply_add(share, get(from), get(to))); });
  }
  if constexpr (!std::is_same_v<T, float>) {
    for_each_vector((last - first) * width, [=](const auto& get, const auto& put) { put(written, get(rows)); });
  }
}

template <class T>
void spread(const EmbeddingBags& in, int64_t bag, const T* grad, T* values) {
  const int64_t begin = in.offsets[bag], end = in.offsets[bag + 1], width = in.width;
  const Floats share = broadcast(end > begin ? 1.0f / static_cast<float>(end - begin) : 0.0f);
  for (int64_t i = begin; i < end; ++i) {
    T* to = values + i * width;
    for_each_vector(width, [=](const auto& get, const auto& put) { put(to, get(grad) * share); });
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
