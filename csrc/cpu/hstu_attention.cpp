#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/hstu_attention.h"

#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/time_buckets.h"

namespace uqabench {

// One task: some heads of one sequence.
struct HeadRange {
  int64_t sequence, begin, end;
};

// Where each head of each sequence leaves its part of the tables' gradients; summed in a fixed order afterwards.
struct BiasGradients {
  float* position;  // (tokens, heads), a sequence's heads one after the other: (head, i - j)
  float* time;      // (sequences, heads, buckets)

  float* position_of(const HstuAttention& args, int64_t b, int64_t h) const {
    if (!args.position_bias) return nullptr;
    return position + args.offsets[b] * args.heads + h * (args.offsets[b + 1] - args.offsets[b]);
  }
  float* time_of(const HstuAttention& args, int64_t b, int64_t h) const {
    return args.time_bias ? time + (b * args.heads + h) * args.buckets : nullptr;
  }
};

}  // namespace uqabench

#define UQ_SOURCE "cpu/hstu_attention.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {
namespace {

int64_t longest_sequence(const HstuAttention& args) {
  int64_t longest = 0;
  for (int64_t b = 0; b < args.sequences; ++b) longest = std::max(longest, args.offsets[b + 1] - args.offsets[b]);
  return longest;
}

// Longest sequences first, so that no long one is left to run alone at the end. Time buckets are shared by the heads
// of a task, so with a time bias tasks are as large as still gives each thread two.
std::vector<HeadRange> split(const HstuAttention& args) {
  const auto length = [&](int64_t b) { return args.offsets[b + 1] - args.offsets[b]; };
  std::vector<int64_t> order;
  for (int64_t b = 0; b < args.sequences; ++b) {
    if (length(b) > 0) order.push_back(b);
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  int64_t heads = 1;
  if (args.time_bias) heads = std::clamp<int64_t>(order.size() * args.heads / (2 * args.threads), 1, args.heads);
  std::vector<HeadRange> tasks;
  for (int64_t b : order) {
    for (int64_t h = 0; h < args.heads; h += heads) tasks.push_back({b, h, std::min(h + heads, args.heads)});
  }
  return tasks;
}

TimeBuckets time_buckets(const HstuAttention& args) {
  return TimeBuckets(args.bucket_starts, args.time_bias ? args.buckets - 1 : 0);
}

}  // namespace

void hstu_attention_forward(const HstuAttention& args, float* out) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  static constexpr decltype(&baseline::forward_scratch) scratch_sizes[] = UQ_TABLE(forward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = split(args);
  const TimeBuckets buckets = time_buckets(args);
  parallel_for(
      static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, longest_sequence(args)),
      [&](int64_t i, float* scratch) { kernels[isa](args, buckets, tasks[i], out, scratch); });
}

void hstu_attention_backward(const HstuAttention& args, const HeadView& grad, const HstuGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::backward_scratch) scratch_sizes[] = UQ_TABLE(backward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = split(args);
  const TimeBuckets buckets = time_buckets(args);
  const int64_t tokens = args.offsets[args.sequences];
  std::vector<float> position(args.position_bias ? tokens * args.heads : 0, 0.0f);
  std::vector<float> time(args.time_bias ? args.sequences * args.heads * args.buckets : 0, 0.0f);
  const BiasGradients parts{position.data(), time.data()};
  parallel_for(
      static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, longest_sequence(args)),
      [&](int64_t i, float* scratch) { kernels[isa](args, buckets, grad, tasks[i], gradients, parts, scratch); });
  if (args.position_bias) std::fill_n(gradients.position_bias, 2 * args.max_len - 1, 0.0f);
  if (args.time_bias) std::fill_n(gradients.time_bias, args.buckets, 0.0f);
  for (int64_t b = 0; b < args.sequences; ++b) {
    const int64_t length = args.offsets[b + 1] - args.offsets[b];
    for (int64_t h = 0; h < args.heads; ++h) {
      if (args.position_bias) {
        const float* part = parts.position_of(args, b, h);
        for (int64_t r = 0; r < length; ++r) gradients.position_bias[args.max_len - 1 + r] += part[r];
      }
      if (args.time_bias) {
        const float* part = parts.time_of(args, b, h);
        for (int64_t k = 0; k < args.buckets; ++k) gradients.time_bias[k] += part[k];
      }
    }
  }
}

}  // namespace uqabench
#else

#include "cpu/simd.h"
#include "cpu/gemm.h"
#include "cpu/hstu_bias.h"

// Queries are taken `panel` at a time: scores are held transposed, one row a key and one lane a query, so that neither
// K nor V needs transposing, only a panel of Q.
namespace uqabench::UQ_ISA {
namespace {

// -1 in the lanes whose query, `query` + lane, is not before key j.
UQ_INLINE Ints causal(int64_t query, int64_t j) {
  Ints lane;
  for (int i = 0; i < lanes; ++i) lane[i] = i;
  return lane >= static_cast<int32_t>(std::max<int64_t>(j - query, 0));
}

UQ_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// rows (queries) x columns = transposed weights (keys, panel) times right (keys, columns in panels of `right_rows`).
inline void multiply_queries(const float* weights, int64_t keys, int64_t query, const float* right, int64_t right_rows,
                             int64_t columns, float* out) {
  for (int64_t p = 0; p < columns / panel; ++p) {
    for (int i = 0; i < panel; i += block) {
      Sums<block> sums;
      // Keys after the block's last query have weight 0.
      sums.add_product(std::min(keys, query + i + block), weights + i, 1, panel, right + p * right_rows * panel);
      sums.store_to(out + (p * panel + i) * panel);
    }
  }
}

// into (right_rows of keys, columns) += weights (keys, panel) times right (panel queries, columns), in column panels.
inline void accumulate_keys(const float* weights, int64_t keys, int64_t query, const float* right, int64_t columns,
                            float* into, int64_t into_rows) {
  for (int64_t p = 0; p < columns / panel; ++p) {
    for (int64_t j = 0; j < keys; j += block) {
      const int64_t skipped = std::max<int64_t>(j - query, 0);  // queries before key j have weight 0
      float* to = into + (p * into_rows + j) * panel;
      Sums<block> sums;
      sums.load_from(to);
      sums.add_product(panel - skipped, weights + j * panel + skipped, panel, 1, right + (p * panel + skipped) * panel);
      sums.store_to(to);
    }
  }
}

// Pieces of an Arena are rounded up; this covers all of them.
constexpr int64_t slack = 512;

inline int64_t forward_scratch(const HstuAttention& args, int64_t longest) {
  const Shape s(args, longest);
  return (s.rows + panel) * (s.width + s.value_width) + s.rows * panel + Bias::scratch(s) + slack;
}

inline void forward_head(const HstuAttention& args, const Shape& s, int64_t start, int64_t head, Bias& bias, float* out,
                         Arena arena) {
  float* k = arena.take(s.rows * s.width);
  float* v = arena.take(s.rows * s.value_width);
  float* weights = arena.take(s.rows * panel);
  float* q = arena.take(s.width * panel);
  float* result = arena.take(s.value_width * panel);
  pack(args.k.at(start, head), args.k.token_stride, s.length, args.width, s.rows, k);
  pack(args.v.at(start, head), args.v.token_stride, s.length, args.value_width, s.rows, v);
  const int64_t row = args.heads * args.value_width;
  for (int64_t query = 0; query < s.length; query += panel) {
    const int64_t queries = std::min<int64_t>(panel, s.length - query), keys = round_up(query + queries, block);
    pack_transposed(args.q.at(start + query, head), args.q.token_stride, queries, args.width, q);
    bias.begin_panel(query);
    for (int64_t j = 0; j < keys; j += block) {
      Sums<block> scores;
      scores.add_panels(args.width, k + j * panel, s.rows, q);
      for (int r = 0; r < block; ++r) {
        for (int half = 0; half < 2; ++half) {
          const Floats x = multiply_add(scores.value[r][half], broadcast(args.scale), bias.of(j + r, half * lanes));
          store(weights + (j + r) * panel + half * lanes, keep(causal(query + half * lanes, j + r), x * sigmoid(x)));
        }
      }
    }
    multiply_queries(weights, keys, query, v, s.rows, s.value_width, result);
    unpack(result, panel, queries, args.value_width, 1.0f / static_cast<float>(args.max_len),
           out + (start + query) * row + head * args.value_width, row);
  }
}

inline void forward(const HstuAttention& args, const TimeBuckets& buckets, const HeadRange& task, float* out,
                    float* scratch) {
  const int64_t start = args.offsets[task.sequence];
  const Shape shape(args, args.offsets[task.sequence + 1] - start);
  Arena arena{scratch};
  Bias bias(args, buckets, start, shape, arena);
  for (int64_t head = task.begin; head < task.end; ++head) forward_head(args, shape, start, head, bias, out, arena);
}

inline int64_t backward_scratch(const HstuAttention& args, int64_t longest) {
  const Shape s(args, longest);
  return 2 * (s.rows + panel) * (s.width + s.value_width) + panel * (2 * s.rows + s.width) + Bias::scratch(s) + slack;
}

inline void backward_head(const HstuAttention& args, const HeadView& grad, const Shape& s, int64_t start, int64_t head,
                          Bias& bias, const HstuGradients& gradients, Arena arena) {
  float* k = arena.take(s.rows * s.width);
  float* v = arena.take(s.rows * s.value_width);
  float* dk = arena.take(s.rows * s.width);
  float* dv = arena.take(s.rows * s.value_width);
  float* weights = arena.take(s.rows * panel);
  float* slopes = arena.take(s.rows * panel);  // the scores' gradient
  float* q = arena.take(panel * s.width);
  float* g = arena.take(panel * s.value_width);
  float* q_transposed = arena.take(s.width * panel);
  float* g_transposed = arena.take(s.value_width * panel);
  float* dq = arena.take(s.width * panel);
  pack(args.k.at(start, head), args.k.token_stride, s.length, args.width, s.rows, k);
  pack(args.v.at(start, head), args.v.token_stride, s.length, args.value_width, s.rows, v);
  std::fill_n(dk, s.rows * s.width, 0.0f);
  std::fill_n(dv, s.rows * s.value_width, 0.0f);
  bias.clear_gradients();
  const float share = 1.0f / static_cast<float>(args.max_len);
  const int64_t row = args.heads * args.width, value_row = args.heads * args.value_width;
  for (int64_t query = 0; query < s.length; query += panel) {
    const int64_t queries = std::min<int64_t>(panel, s.length - query), keys = round_up(query + queries, block);
    const float* q_rows = args.q.at(start + query, head);
    const float* g_rows = grad.at(start + query, head);
    pack(q_rows, args.q.token_stride, queries, args.width, panel, q);
    pack(g_rows, grad.token_stride, queries, args.value_width, panel, g);
    pack_transposed(q_rows, args.q.token_stride, queries, args.width, q_transposed);
    pack_transposed(g_rows, grad.token_stride, queries, args.value_width, g_transposed);
    bias.begin_panel(query);
    for (int64_t j = 0; j < keys; j += block) {
      Sums<block> scores, d_weights;
      scores.add_panels(args.width, k + j * panel, s.rows, q_transposed);
      scores.store_to(weights + j * panel);
      d_weights.add_panels(args.value_width, v + j * panel, s.rows, g_transposed);
      for (int r = 0; r < block; ++r) {
        for (int half = 0; half < 2; ++half) {
          float* weight = weights + (j + r) * panel + half * lanes;
          const Floats x = multiply_add(load(weight), broadcast(args.scale), bias.of(j + r, half * lanes));
          const Floats gate = sigmoid(x);
          const Ints mask = causal(query + half * lanes, j + r);
          store(weight, keep(mask, x * gate));
          const Floats slope = gate + x * gate * (1.0f - gate);
          store(slopes + (j + r) * panel + half * lanes, keep(mask, d_weights.value[r][half] * slope * share));
        }
        bias.accumulate(j + r, slopes + (j + r) * panel);
      }
    }
    accumulate_keys(weights, keys, query, g, s.value_width, dv, s.rows);
    accumulate_keys(slopes, keys, query, q, s.width, dk, s.rows);
    multiply_queries(slopes, keys, query, k, s.rows, s.width, dq);
    unpack(dq, panel, queries, args.width, args.scale, gradients.q + (start + query) * row + head * args.width, row);
  }
  unpack(dk, s.rows, s.length, args.width, args.scale, gradients.k + start * row + head * args.width, row);
  unpack(dv, s.rows, s.length, args.value_width, share, gradients.v + start * value_row + head * args.value_width,
         value_row);
}

inline void backward(const HstuAttention& args, const TimeBuckets& buckets, const HeadView& grad, const HeadRange& task,
                     const HstuGradients& gradients, const BiasGradients& parts, float* scratch) {
  const int64_t start = args.offsets[task.sequence];
  const Shape shape(args, args.offsets[task.sequence + 1] - start);
  Arena arena{scratch};
  Bias bias(args, buckets, start, shape, arena);
  for (int64_t head = task.begin; head < task.end; ++head) {
    backward_head(args, grad, shape, start, head, bias, gradients, arena);
    bias.write_gradients(parts.position_of(args, task.sequence, head), parts.time_of(args, task.sequence, head));
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
