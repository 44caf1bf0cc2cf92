#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/causal_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/causal_attention.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void causal_attention_forward(const AttentionInputs& in, float* out, float* log_sums) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  static constexpr decltype(&baseline::forward_scratch) scratch_sizes[] = UQ_TABLE(forward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = split(in, 1);
  parallel_for(static_cast<int64_t>(tasks.size()), in.threads, scratch_sizes[isa](in, in.longest()),
               [&](int64_t i, float* scratch) { kernels[isa](in, tasks[i], out, log_sums, scratch); });
}

void causal_attention_backward(const AttentionInputs& in, const CausalAttentionResult& result,
                               const CausalGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::backward_scratch) scratch_sizes[] = UQ_TABLE(backward_scratch);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = split(in, 1);
  parallel_for(static_cast<int64_t>(tasks.size()), in.threads, scratch_sizes[isa](in, in.longest()),
               [&](int64_t i, float* scratch) { kernels[isa](in, result, tasks[i], gradients, scratch); });
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/gemm.h"
#include "cpu/attention.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

constexpr float lowest = -3e38f;  // a masked score; finite, so that its difference from a maximum is not NaN

inline int64_t forward_scratch(const AttentionInputs& in, int64_t longest) {
  const Shape s(in, longest);
  return Head::scratch(s) + panel * (s.rows + s.value_width) + slack;
}

// Writes the scaled scores of the head's panel, and finds each query's largest.
UQ_INLINE void write_scores(const Head& head, float* scores, Floats (&largest)[2]) {
  largest[0] = largest[1] = broadcast(lowest);
  for_each_block(head.keys, [&](auto rows, int64_t j) UQ_LAMBDA {
    head.write_products<rows()>(j, scores + j * panel);
    for (int r = 0; r < rows(); ++r) {
      for (int half = 0; half < 2; ++half) {
        float* score = scores + (j + r) * panel + half * lanes;
        const Ints mask = causal(head.query + half * lanes, j + r);
        const Floats x = mask ? load(score) * head.in.scale : broadcast(lowest);
        store(score, x);
        largest[half] = x > largest[half] ? x : largest[half];
      }
    }
  });
}

// Replaces the scores by their softmax over the keys, and writes the logarithms of its denominators.
UQ_INLINE void softmax(float* scores, int64_t keys, const Floats (&largest)[2], float* log_sums) {
  for (int half = 0; half < 2; ++half) {
    float* lane = scores + half * lanes;
    Floats sum = {};
    for (int64_t j = 0; j < keys; ++j) {
      const Floats x = load(lane + j * panel);
      const Floats weight = keep(x > lowest, exponential(x - largest[half])) + keep(x != x, x);
      store(lane + j * panel, weight);
      sum += weight;
    }
    const Floats share = 1.0f / sum;
    for (int64_t j = 0; j < keys; ++j) store(lane + j * panel, load(lane + j * panel) * share);
    for (int i = 0; i < lanes; ++i) log_sums[half * lanes + i] = largest[half][i] + std::log(sum[i]);
  }
}

inline void forward(const AttentionInputs& in, const HeadRange& task, float* out, float* log_sums, float* scratch) {
  const int64_t start = in.offsets[task.sequence];
  const Shape s(in, in.length(task.sequence));
  Arena arena{scratch};
  Head head(in, s, start, task.begin, arena);
  float* weights = arena.take(s.rows * panel);
  float* result = arena.take(s.value_width * panel);
  for (int64_t query = 0; query < s.length; query += panel) {
    head.begin_panel(query);
    Floats largest[2];
    write_scores(head, weights, largest);
    float logs[panel];
    softmax(weights, head.keys, largest, logs);
    for (int64_t i = 0; i < head.queries; ++i) log_sums[(start + query + i) * in.heads + head.head] = logs[i];
    head.multiply_queries(weights, head.v, in.value_width, 1.0f, out, result);
  }
}

inline int64_t backward_scratch(const AttentionInputs& in, int64_t longest) {
  const Shape s(in, longest);
  return Head::scratch(s) + HeadGradient::scratch(s) + panel * s.width + slack;
}

// For each query of the panel: the logarithm of its softmax's denominator, and grad . out, which the softmax's gradient
// subtracts.
struct PanelStatistics {
  float log_sum[panel] = {}, product[panel] = {};

  PanelStatistics(const Head& head, const CausalAttentionResult& result) {
    for (int64_t i = 0; i < head.queries; ++i) {
      const int64_t token = head.start + head.query + i;
      log_sum[i] = result.log_sums[token * head.in.heads + head.head];
      product[i] = dot(result.grad.at(token, head.head), result.out.at(token, head.head), head.in.value_width);
    }
  }
};

// Computes the weights of one panel and the gradient of its scores.
inline void backward_panel(const Head& head, const HeadGradient& gradient, const PanelStatistics& statistics,
                           float* weights, float* score_gradients) {
  for_each_block(head.keys, [&](auto rows, int64_t j) UQ_LAMBDA {
    head.products<rows()>(j).store_to(weights + j * panel);
    const Accumulators<rows()> d_weights = gradient.weight_gradients<rows()>(j);
    for (int r = 0; r < rows(); ++r) {
      for (int half = 0; half < 2; ++half) {
        float* weight = weights + (j + r) * panel + half * lanes;
        const Floats x = load(weight) * head.in.scale - load(statistics.log_sum + half * lanes);
        const Floats p = keep(causal(head.query + half * lanes, j + r), exponential(x));
        store(weight, p);
        store(score_gradients + (j + r) * panel + half * lanes,
              p * (d_weights.value[r][half] - load(statistics.product + half * lanes)));
      }
    }
  });
}

inline void backward(const AttentionInputs& in, const CausalAttentionResult& result, const HeadRange& task,
                     const CausalGradients& gradients, float* scratch) {
  const Shape s(in, in.length(task.sequence));
  Arena arena{scratch};
  Head head(in, s, in.offsets[task.sequence], task.begin, arena);
  HeadGradient gradient(head, result.grad, arena);
  float* dq = arena.take(s.width * panel);
  for (int64_t first = 0; first < s.length; first += panels_at_once * panel) {
    gradient.begin_panels(first);
    for (int i = 0; i < panels_at_once && first + i * panel < s.length; ++i) {
      head.begin_panel(first + i * panel);
      gradient.begin_panel(i);
      backward_panel(head, gradient, PanelStatistics(head, result), gradient.weights[i], gradient.score_gradients[i]);
      head.multiply_queries(gradient.score_gradients[i], head.k, in.width, in.scale, gradients.q, dq);
    }
    gradient.add_panels();
  }
  gradient.write(in.scale, 1.0f, gradients.k, gradients.v);
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
