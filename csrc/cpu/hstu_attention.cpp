#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/hstu_attention.h"

#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/time_buckets.h"

namespace uqabench {

// The accumulators of the tables' gradients, one for each head of each sequence; they are added in a fixed order
// afterwards.
struct BiasGradients {
  float* position;  // (tokens, heads); a sequence's part is (heads, length), indexed by head and i - j
  float* time;      // (sequences, heads, buckets)

  float* position_of(const HstuAttention& args, int64_t b, int64_t h) const {
    return args.position_bias ? position + args.offsets[b] * args.heads + h * args.length(b) : nullptr;
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

// The heads of a task share their time buckets, so with a time bias tasks are as large as leaves two for each thread.
std::vector<HeadRange> tasks_of(const HstuAttention& args) {
  if (!args.time_bias) return split(args, 1);
  return split(args, std::clamp<int64_t>(args.sequences * args.heads / (2 * args.threads), 1, args.heads));
}

TimeBuckets time_buckets(const HstuAttention& args) {
  return TimeBuckets(args.bucket_starts, args.time_bias ? args.buckets - 1 : 0);
}

void sum_parts(const HstuAttention& args, const BiasGradients& parts, const HstuGradients& gradients) {
  if (args.position_bias) std::fill_n(gradients.position_bias, 2 * args.max_len - 1, 0.0f);
  if (args.time_bias) std::fill_n(gradients.time_bias, args.buckets, 0.0f);
  for (int64_t b = 0; b < args.sequences; ++b) {
    for (int64_t h = 0; h < args.heads; ++h) {
      if (args.position_bias) {
        const float* part = parts.position_of(args, b, h);
        for (int64_t r = 0; r < args.length(b); ++r) gradients.position_bias[args.max_len - 1 + r] += part[r];
      }
      if (args.time_bias) {
        const float* part = parts.time_of(args, b, h);
        for (int64_t k = 0; k < args.buckets; ++k) gradients.time_bias[k] += part[k];
      }
    }
  }
}

}  // namespace

void hstu_attention_forward(const HstuAttention& args, float* out) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  static constexpr decltype(&baseline::forward_scratch) scratch_sizes[] = UQ_TABLE(forward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = tasks_of(args);
  const TimeBuckets buckets = time_buckets(args);
  parallel_for(static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, args.longest()),
               [&](int64_t i, float* scratch) { kernels[isa](args, buckets, tasks[i], out, scratch); });
}

void hstu_attention_backward(const HstuAttention& args, const HeadView& grad, const HstuGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::backward_scratch) scratch_sizes[] = UQ_TABLE(backward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = tasks_of(args);
  const TimeBuckets buckets = time_buckets(args);
  std::vector<float> position(args.position_bias ? args.tokens() * args.heads : 0, 0.0f);
  std::vector<float> time(args.time_bias ? args.sequences * args.heads * args.buckets : 0, 0.0f);
  const BiasGradients parts{position.data(), time.data()};
  parallel_for(
      static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, args.longest()),
      [&](int64_t i, float* scratch) { kernels[isa](args, buckets, grad, tasks[i], gradients, parts, scratch); });
  sum_parts(args, parts, gradients);
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

UQ_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

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
          store(weights + (j + r) * panel + half * lanes, keep(causal(query + half * lanes, j + r), x * sigmoid(x)));
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
        const Floats gate = sigmoid(x);
        const Ints mask = causal(head.query + half * lanes, j + r);
        store(weight, keep(mask, x * gate));
        store(score_gradient, keep(mask, load(score_gradient) * (gate + x * gate * (1.0f - gate)) * share));
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
                     const HstuGradients& gradients, const BiasGradients& parts, float* scratch) {
  const int64_t start = args.offsets[task.sequence];
  const Shape shape(args, args.length(task.sequence));
  Arena shared{scratch};
  Bias bias(args, buckets, start, shape, shared);
  for (int64_t h = task.begin; h < task.end; ++h) {
    Arena arena = shared;
    const Head head(args, shape, start, h, arena);
    backward_head(args, grad, head, bias, gradients, arena);
    bias.write_gradients(parts.position_of(args, task.sequence, h), parts.time_of(args, task.sequence, h));
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
