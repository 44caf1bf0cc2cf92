#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/hstu_attention.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/time_buckets.h"

namespace uqabench {

// Where one sequence's one head leaves its part of the tables' gradients; summed in a fixed order afterwards.
struct BiasGradients {
  float* position;  // (length): by i - j
  float* time;      // (buckets)
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

// Sequences that are not empty, longest first, so that no long one is left to run alone at the end.
std::vector<int64_t> longest_first(const HstuAttention& args) {
  const auto length = [&](int64_t b) { return args.offsets[b + 1] - args.offsets[b]; };
  std::vector<int64_t> order(args.sequences);
  std::iota(order.begin(), order.end(), int64_t{0});
  order.erase(std::remove_if(order.begin(), order.end(), [&](int64_t b) { return length(b) == 0; }), order.end());
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  return order;
}

TimeBuckets time_buckets(const HstuAttention& args) {
  return TimeBuckets(args.bucket_starts, args.time_bias ? args.buckets - 1 : 0);
}

}  // namespace

void hstu_attention_forward(const HstuAttention& args, float* out) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  static constexpr decltype(&baseline::forward_scratch) scratch_sizes[] = UQ_TABLE(forward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<int64_t> order = longest_first(args);
  const TimeBuckets buckets = time_buckets(args);
  parallel_for(static_cast<int64_t>(order.size()) * args.heads, args.threads,
               scratch_sizes[isa](args, longest_sequence(args)), [&](int64_t task, float* scratch) {
                 kernels[isa](args, buckets, order[task / args.heads], task % args.heads, out, scratch);
               });
}

void hstu_attention_backward(const HstuAttention& args, const HeadView& grad, const HstuGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::backward_scratch) scratch_sizes[] = UQ_TABLE(backward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<int64_t> order = longest_first(args);
  const TimeBuckets buckets = time_buckets(args);
  const int64_t tokens = args.offsets[args.sequences];
  std::vector<float> position(args.position_bias ? tokens * args.heads : 0, 0.0f);
  std::vector<float> time(args.time_bias ? args.sequences * args.heads * args.buckets : 0, 0.0f);
  const auto parts = [&](int64_t b, int64_t h) {
    const int64_t begin = args.offsets[b] * args.heads + h * (args.offsets[b + 1] - args.offsets[b]);
    return BiasGradients{position.empty() ? nullptr : position.data() + begin,
                         time.empty() ? nullptr : time.data() + (b * args.heads + h) * args.buckets};
  };
  parallel_for(static_cast<int64_t>(order.size()) * args.heads, args.threads,
               scratch_sizes[isa](args, longest_sequence(args)), [&](int64_t task, float* scratch) {
                 const int64_t b = order[task / args.heads], h = task % args.heads;
                 kernels[isa](args, buckets, grad, b, h, gradients, parts(b, h), scratch);
               });
  if (args.position_bias) std::fill_n(gradients.position_bias, 2 * args.max_len - 1, 0.0f);
  if (args.time_bias) std::fill_n(gradients.time_bias, args.buckets, 0.0f);
  for (int64_t b = 0; b < args.sequences; ++b) {
    for (int64_t h = 0; h < args.heads; ++h) {
      const BiasGradients part = parts(b, h);
      const int64_t length = args.offsets[b + 1] - args.offsets[b];
      for (int64_t r = 0; part.position && r < length; ++r) {
        gradients.position_bias[args.max_len - 1 + r] += part.position[r];
      }
      for (int64_t k = 0; part.time && k < args.buckets; ++k) gradients.time_bias[k] += part.time[k];
    }
  }
}

}  // namespace uqabench
#else

#include "cpu/simd.h"
#include "cpu/gemm.h"

// One task is one head of one sequence. Queries are taken `panel` at a time: scores are held transposed, one row a
// key and one lane a query, so that neither K nor V needs transposing, only a panel of Q.
namespace uqabench::UQ_ISA {

// Entries before the first of a local position table: a masked lane reads i - j down to -(panel + block).
constexpr int64_t margin = 2 * panel;

// The sizes of one task's matrices, padded to whole register blocks.
struct Shape {
  int64_t length, rows, width, value_width;  // rows: the length, padded

  Shape(const HstuAttention& args, int64_t sequence_length)
      : length(sequence_length),
        rows(round_up(sequence_length, panel)),
        width(round_up(args.width, panel)),
        value_width(round_up(args.value_width, panel)) {}
};

// The bias of a panel of queries, row by row of the transposed scores, and the tables' gradients.
class Bias {
 public:
  static int64_t scratch(int64_t rows) { return 2 * (rows + margin) + round_up(rows * panel, 64) / 4; }

  Bias(const HstuAttention& args, const TimeBuckets& buckets, int64_t first_token, const Shape& shape, float* scratch)
      : args_(args),
        buckets_(buckets),
        times_(args.timestamps ? args.timestamps + first_token : nullptr),
        shape_(shape),
        table_(scratch + margin),
        table_gradient_(table_ + shape.rows + margin),
        bucket_(reinterpret_cast<uint8_t*>(table_gradient_ + shape.rows)) {
    if (!args.position_bias) return;
    for (int64_t r = -margin; r < shape.rows; ++r) {
      table_[r] = r >= 0 && r < shape.length ? args.position_bias[args.max_len - 1 + r] : 0.0f;
      table_gradient_[r] = 0.0f;
    }
  }

  // Buckets of the gaps between keys [0, keys) and the queries from `query` on. Lanes past the end repeat the last.
  void begin_panel(int64_t query, int64_t keys) {
    query_ = query;
    if (!args_.time_bias) return;
    int64_t times[panel];
    for (int i = 0; i < panel; ++i) times[i] = times_[std::min(query + i, shape_.length - 1)];
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t key_time = times_[std::min(j, shape_.length - 1)];
      for (int i = 0; i < panel; ++i) bucket_[j * panel + i] = buckets_.of(times[i], key_time);
    }
  }

  // The bias of key j and the panel's lanes [first, first + lanes).
  UQ_INLINE Floats of(int64_t j, int first) const {
    Floats bias = {};
    if (args_.position_bias) bias += load(table_ + query_ + first - j);
    if (args_.time_bias) {
      float values[lanes];
      for (int i = 0; i < lanes; ++i) values[i] = args_.time_bias[bucket_[j * panel + first + i]];
      bias += load(values);
    }
    return bias;
  }

  // Adds the gradient of key j's scores, zero where masked, to the tables' gradients.
  UQ_INLINE void accumulate(int64_t j, const float* gradient, const BiasGradients& out) {
    if (args_.position_bias) {
      for (int first = 0; first < panel; first += lanes) {
        float* to = table_gradient_ + query_ + first - j;
        store(to, load(to) + load(gradient + first));
      }
    }
    if (args_.time_bias) {
      for (int i = 0; i < panel; ++i) out.time[bucket_[j * panel + i]] += gradient[i];
    }
  }

  void finish(const BiasGradients& out) const {
    if (args_.position_bias) std::copy_n(table_gradient_, shape_.length, out.position);
  }

 private:
  const HstuAttention& args_;
  const TimeBuckets& buckets_;
  const int64_t* times_;
  const Shape& shape_;
  float* table_;           // by i - j, from -margin
  float* table_gradient_;  // likewise
  uint8_t* bucket_;        // (keys, panel)
  int64_t query_ = 0;
};

// -1 in the lanes whose query, `query` + lane, is not before key j.
UQ_INLINE Ints causal(int64_t query, int64_t j) {
  Ints lane;
  for (int i = 0; i < lanes; ++i) lane[i] = i;
  return lane >= static_cast<int32_t>(std::max<int64_t>(j - query, 0));
}

UQ_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// Hands out a task's scratch memory piece by piece.
struct Arena {
  float* next;

  float* take(int64_t floats) {
    float* piece = next;
    next += round_up(floats, 16);
    return piece;
  }
};

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

inline int64_t forward_scratch(const HstuAttention& args, int64_t longest) {
  const Shape s(args, longest);
  return s.rows * (s.width + s.value_width + panel) + panel * (s.width + s.value_width) + Bias::scratch(s.rows) + 256;
}

inline void forward(const HstuAttention& args, const TimeBuckets& buckets, int64_t b, int64_t head, float* out,
                    float* scratch) {
  const int64_t start = args.offsets[b];
  const Shape s(args, args.offsets[b + 1] - start);
  Arena arena{scratch};
  float* k = arena.take(s.rows * s.width);
  float* v = arena.take(s.rows * s.value_width);
  float* weights = arena.take(s.rows * panel);
  float* q = arena.take(s.width * panel);
  float* result = arena.take(s.value_width * panel);
  Bias bias(args, buckets, start, s, arena.take(Bias::scratch(s.rows)));
  pack(args.k.at(start, head), args.k.token_stride, s.length, args.width, s.rows, k);
  pack(args.v.at(start, head), args.v.token_stride, s.length, args.value_width, s.rows, v);
  for (int64_t query = 0; query < s.length; query += panel) {
    const int64_t queries = std::min<int64_t>(panel, s.length - query), keys = round_up(query + queries, block);
    pack_transposed(args.q.at(start + query, head), args.q.token_stride, queries, args.width, q);
    bias.begin_panel(query, keys);
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
    const int64_t row = args.heads * args.value_width;
    unpack(result, panel, queries, args.value_width, 1.0f / static_cast<float>(args.max_len),
           out + (start + query) * row + head * args.value_width, row);
  }
}

inline int64_t backward_scratch(const HstuAttention& args, int64_t longest) {
  const Shape s(args, longest);
  return 2 * (s.rows + panel) * (s.width + s.value_width) + panel * (2 * s.rows + s.width) + Bias::scratch(s.rows) +
         512;
}

inline void backward(const HstuAttention& args, const TimeBuckets& buckets, const HeadView& grad, int64_t b,
                     int64_t head, const HstuGradients& gradients, const BiasGradients& tables, float* scratch) {
  const int64_t start = args.offsets[b];
  const Shape s(args, args.offsets[b + 1] - start);
  Arena arena{scratch};
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
  Bias bias(args, buckets, start, s, arena.take(Bias::scratch(s.rows)));
  pack(args.k.at(start, head), args.k.token_stride, s.length, args.width, s.rows, k);
  pack(args.v.at(start, head), args.v.token_stride, s.length, args.value_width, s.rows, v);
  std::fill_n(dk, s.rows * s.width, 0.0f);
  std::fill_n(dv, s.rows * s.value_width, 0.0f);
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
    bias.begin_panel(query, keys);
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
        bias.accumulate(j + r, slopes + (j + r) * panel, tables);
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
  bias.finish(tables);
}

}  // namespace uqabench::UQ_ISA
#endif
