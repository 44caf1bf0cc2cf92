#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/hstu_attention.h"

#include <algorithm>
#include <vector>

#include "cpu/hstu_tasks.h"
#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/hstu_attention.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void hstu_attention_forward(const HstuAttention& args, float* out) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  static constexpr decltype(&baseline::forward_scratch) scratch_sizes[] = UQ_TABLE(forward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = hstu_tasks(args);
  const TimeBuckets buckets = hstu_buckets(args);
  parallel_for(static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, args.longest()),
               [&](int64_t i, float* scratch) { kernels[isa](args, buckets, tasks[i], out, scratch); });
}

void hstu_attention_backward(const HstuAttention& args, const HeadView& grad, const HstuGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::backward_scratch) scratch_sizes[] = UQ_TABLE(backward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = hstu_tasks(args);
  const TimeBuckets buckets = hstu_buckets(args);
  HstuTableSums sums(args, 1);
  parallel_for(
      static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, args.longest()),
      [&](int64_t i, float* scratch) { kernels[isa](args, buckets, grad, tasks[i], gradients, sums, scratch); });
  sums.write(args, gradients);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/gemm.h"
#include "cpu/attention.h"
#include "cpu/hstu_bias.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// The biases of one sequence, by row of the transposed scores, and the tables' gradients.
class Bias {
 public:
  static int64_t scratch(const Shape& s) { return Tables::scratch(s.rows + panel) + buckets_size(s) / 4 + 64; }

  // Positions begin before 0, because a masked lane reads i - j down to 1 - panel.
  Bias(const HstuAttention& args, const TimeBuckets& buckets, int64_t start, const Shape& shape, Arena& arena)
      : tables_(args, {panel, shape.rows, shape.length, 1}, arena),
        bucket_(reinterpret_cast<uint8_t*>(arena.take(buckets_size(shape) / 4))) {
    if (!args.time_bias) return;
    for (int64_t query = 0; query < shape.length; query += panel) {
      fill_buckets(buckets, args.timestamps + start, shape.length, query, 0, query + panel,
                   bucket_ + panel_begin(query));
    }
  }

  // Makes of() and accumulate() refer to the panel of queries that begins at `query`, a multiple of `panel`.
  void begin_panel(int64_t query) {
    query_ = query;
    panel_bucket_ = bucket_ + panel_begin(query);
  }

  // The biases of key j for the panel's lanes [first, first + lanes).
  UQ_INLINE Floats of(int64_t j, int first) const {
    return tables_.of(query_ + first - j, panel_bucket_ + j * panel + first);
  }

  void clear_gradients() { tables_.clear_gradients(); }

  // Adds the gradients of key j's scores, which are zero where masked, to the tables' gradients.
  UQ_INLINE void accumulate(int64_t j, const float* gradient) {
    tables_.accumulate(query_ - j, panel_bucket_ + j * panel, gradient);
  }

  void write_gradients(float* position, float* time) const { tables_.write_gradients(position, time); }

 private:
  using Tables = HstuTables<4>;

  // The index of the panel that begins at `query`: before it lie panels of `panel`, 2 * `panel`, ... keys.
  static int64_t panel_begin(int64_t query) { return query / panel * (query / panel + 1) / 2 * panel * panel; }
  static int64_t buckets_size(const Shape& s) { return panel_begin(s.rows); }

  Tables tables_;
  int64_t query_ = 0;
  uint8_t* bucket_;  // the bucket of each pair of a key and a query, by panel
  const uint8_t* panel_bucket_ = nullptr;
};

inline int64_t forward_scratch(const HstuAttention& args, int64_t longest) {
  const Shape s(args, longest);
  return Head::scratch(s) + panel * (s.rows + s.value_width) + Bias::scratch(s) + slack;
}

inline void forward_head(const HstuAttention& args, Head head, Bias& bias, float* out, Arena arena) {
  const Shape& s = head.shape;
  float* weights = arena.take(s.rows * panel);
  float* result = arena.take(s.value_width * panel);
  for (int64_t query = 0; query < s.length; query += panel) {
    head.begin_panel(query);
    bias.begin_panel(query);
    for_each_block(head.keys, [&](auto rows, int64_t j) UQ_LAMBDA {
      const Accumulators<rows()> scores = head.products<rows()>(j);
      for (int r = 0; r < rows(); ++r) {
        for (int half = 0; half < 2; ++half) {
          const Floats x = multiply_add(scores.value[r][half], broadcast(args.scale), bias.of(j + r, half * lanes));
          write_weights(x, causal(query + half * lanes, j + r), weights + (j + r) * panel + half * lanes);
        }
      }
    });
    head.multiply_queries(weights, head.v, args.value_width, 1.0f / static_cast<float>(args.max_len), out, result);
  }
}

inline void forward(const HstuAttention& args, const TimeBuckets& buckets, const HeadRange& task, float* out,
                    float* scratch) {
  const int64_t start = args.offsets[task.sequence];
  const Shape shape(args, args.length(task.sequence));
  Arena shared{scratch};
  Bias bias(args, buckets, start, shape, shared);
  for (int64_t h = task.begin; h < task.end; ++h) {
    Arena arena = shared;
    const Head head(args, shape, start, h, arena);
    forward_head(args, head, bias, out, arena);
  }
}

inline int64_t backward_scratch(const HstuAttention& args, int64_t longest) {
  const Shape s(args, longest);
  return Head::scratch(s) + HeadGradient::scratch(s) + panel * s.width + Bias::scratch(s) + slack;
}

// Computes the weights of one panel and the gradient of its scores, and adds the latter to the tables' gradients.
inline void backward_panel(const HstuAttention& args, const Head& head, const HeadGradient& gradient, Bias& bias,
                           float share, float* weights, float* score_gradients) {
  for_each_block(head.keys, [&](auto rows, int64_t j) UQ_LAMBDA {
    head.write_products<rows()>(j, weights + j * panel);
    gradient.write_weight_gradients<rows()>(j, score_gradients + j * panel);
    for (int r = 0; r < rows(); ++r) {
      for (int half = 0; half < 2; ++half) {
        float* weight = weights + (j + r) * panel + half * lanes;
        float* score_gradient = score_gradients + (j + r) * panel + half * lanes;
        const Floats x = multiply_add(load(weight), broadcast(args.scale), bias.of(j + r, half * lanes));
        write_weights(x, causal(head.query + half * lanes, j + r), share, weight, score_gradient);
      }
      bias.accumulate(j + r, score_gradients + (j + r) * panel);
    }
  });
}

inline void backward_head(const HstuAttention& args, const HeadView& grad, Head head, Bias& bias,
                          const HstuGradients& gradients, Arena arena) {
  const Shape& s = head.shape;
  HeadGradient gradient(head, grad, arena);
  float* dq = arena.take(s.width * panel);
  const float share = 1.0f / static_cast<float>(args.max_len);
  bias.clear_gradients();
  for (int64_t first = 0; first < s.length; first += panels_at_once * panel) {
    gradient.begin_panels(first);
    for (int i = 0; i < panels_at_once && first + i * panel < s.length; ++i) {
      head.begin_panel(first + i * panel);
      gradient.begin_panel(i);
      bias.begin_panel(head.query);
      backward_panel(args, head, gradient, bias, share, gradient.weights[i], gradient.score_gradients[i]);
      head.multiply_queries(gradient.score_gradients[i], head.k, args.width, args.scale, gradients.q, dq);
    }
    gradient.add_panels();
  }
  gradient.write(args.scale, share, gradients.k, gradients.v);
}

inline void backward(const HstuAttention& args, const TimeBuckets& buckets, const HeadView& grad, const HeadRange& task,
                     const HstuGradients& gradients, HstuTableSums& sums, float* scratch) {
  const int64_t start = args.offsets[task.sequence];
  const Shape shape(args, args.length(task.sequence));
  Arena shared{scratch};
  Bias bias(args, buckets, start, shape, shared);
  for (int64_t h = task.begin; h < task.end; ++h) {
    Arena arena = shared;
    const Head head(args, shape, start, h, arena);
    backward_head(args, grad, head, bias, gradients, arena);
    bias.write_gradients(sums.position_of(args, task.sequence, h), sums.time_of(args, task.sequence, h));
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
