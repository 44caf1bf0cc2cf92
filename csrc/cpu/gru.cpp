#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/gru.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"

namespace uqabench {
namespace {

// The sequences ranked by length, longest first, so that those still running at a step are a prefix.
struct Ranked {
  std::vector<int64_t> sequence, start, length;

  explicit Ranked(const GruLayer& layer) : sequence(layer.sequences) {
    const int64_t* offsets = layer.offsets;
    const auto length_of = [offsets](int64_t b) { return offsets[b + 1] - offsets[b]; };
    std::iota(sequence.begin(), sequence.end(), 0);
    std::stable_sort(sequence.begin(), sequence.end(),
                     [&](int64_t a, int64_t b) { return length_of(a) > length_of(b); });
    for (int64_t b : sequence) {
      start.push_back(offsets[b]);
      length.push_back(length_of(b));
    }
  }

  int64_t steps() const { return length.empty() ? 0 : length[0]; }

  // The number of sequences longer than t, given that number for a neighbouring t.
  int64_t running(int64_t t, int64_t n) const {
    while (n > 0 && length[n - 1] <= t) --n;
    while (n < static_cast<int64_t>(length.size()) && length[n] > t) ++n;
    return n;
  }
};

// One step: token start[i] + t of each sequence ranked i < running.
struct Step {
  const Ranked& ranked;
  int64_t t, running;
};

// What a step reads beside the operands: the weights in panels, and zeros (3 hidden) that stand in for what is absent.
struct Constants {
  const float *weights, *zeros;
};

}  // namespace
}  // namespace uqabench

#define UQ_SOURCE "cpu/gru.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {
namespace {

// The number of threads for a step: so many that each has 2^15 multiplications, about 1 us, which is what a barrier
// costs.
int team_size(const GruLayer& layer, const Ranked& ranked) {
  const double work = 3.0 * layer.hidden * layer.hidden * layer.offsets[layer.sequences];
  const double useful = work / static_cast<double>(std::max<int64_t>(1, ranked.steps())) / (1 << 15);
  return static_cast<int>(std::clamp<double>(useful, 1.0, layer.threads));
}

}  // namespace

void gru_forward(const GruLayer& layer, const GruForward& pass) {
  static constexpr decltype(&baseline::pack_forward) packs[] = UQ_TABLE(pack_forward);
  static constexpr decltype(&baseline::forward_step) kernels[] = UQ_TABLE(forward_step);
  static constexpr decltype(&baseline::packed_size) sizes[] = UQ_TABLE(packed_size);
  const int isa = static_cast<int>(current_isa());
  const Ranked ranked(layer);
  const Scratch weights(sizes[isa](layer));
  const std::vector<float> zeros(3 * layer.hidden);
  parallel_team(team_size(layer, ranked), [&](const Member& member) {
    packs[isa](layer, weights.get(), member);
    member.wait();
    for (int64_t t = 0, running = layer.sequences; t < ranked.steps(); ++t) {
      running = ranked.running(t, running);
      kernels[isa](layer, pass, {ranked, t, running}, {weights.get(), zeros.data()}, member);
      member.wait();
    }
  });
  const size_t row = layer.hidden * sizeof(float);
  for (int64_t b = 0; pass.state && b < layer.sequences; ++b) {
    const float* initial = layer.h0 ? layer.h0 + b * layer.h0_stride : zeros.data();
    const int64_t end = layer.offsets[b + 1];
    const float* last = end > layer.offsets[b] ? pass.out + (end - 1) * layer.hidden : initial;
    if (row > 0) std::memcpy(pass.state + b * layer.hidden, last, row);
  }
}

void gru_backward(const GruLayer& layer, const GruBackward& pass) {
  static constexpr decltype(&baseline::pack_backward) packs[] = UQ_TABLE(pack_backward);
  static constexpr decltype(&baseline::backward_step) kernels[] = UQ_TABLE(backward_step);
  static constexpr decltype(&baseline::packed_size) sizes[] = UQ_TABLE(packed_size);
  const int isa = static_cast<int>(current_isa());
  const Ranked ranked(layer);
  const Scratch weights(sizes[isa](layer));
  const std::vector<float> zeros(3 * layer.hidden);
  const int64_t last = pass.to_h0 ? -1 : 0;  // step -1 carries the gradient from the first tokens to h0
  parallel_team(team_size(layer, ranked), [&](const Member& member) {
    packs[isa](layer, weights.get(), member);
    member.wait();
    for (int64_t t = ranked.steps() - 1, running = 0; t >= last; --t) {
      running = ranked.running(std::max<int64_t>(t, 0), running);
      kernels[isa](layer, pass, {ranked, t, running}, {weights.get(), zeros.data()}, member);
      member.wait();
    }
  });
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/gemm.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// Weights are packed in panels of three vectors of outputs, with one row of 3 * lanes floats for each term of their
// sums. In the forward pass a panel holds the three gates of `lanes` hidden units, in the backward pass `panel_width`
// hidden units. A register tile of `block` sequences by three vectors fills 15 of AVX2's 16 registers.
constexpr int panel_width = 3 * lanes;

inline int64_t packed_size(const GruLayer& layer) {
  const int64_t forward = round_up(layer.hidden, lanes) * layer.hidden * 3;
  return std::max(forward, round_up(layer.hidden, panel_width) * layer.hidden * 3);
}

inline void pack_forward(const GruLayer& layer, float* out, const Member& member) {
  const int64_t hidden = layer.hidden, panels = (hidden + lanes - 1) / lanes;
  for (int64_t p = member.begin(panels); p < member.end(panels); ++p) {
    float* to = out + p * hidden * panel_width;
    const int64_t units = std::min<int64_t>(lanes, hidden - p * lanes);
    if (units < lanes) __builtin_memset(to, 0, hidden * panel_width * sizeof(float));
    for (int gate = 0; gate < 3; ++gate) {
      const float* from = layer.weight + (gate * hidden + p * lanes) * layer.weight_stride;
      transpose(from, layer.weight_stride, units, hidden, to + gate * lanes, panel_width);
    }
  }
}

inline void pack_backward(const GruLayer& layer, float* out, const Member& member) {
  const int64_t rows = 3 * layer.hidden, panels = (layer.hidden + panel_width - 1) / panel_width;
  for (int64_t p = member.begin(panels); p < member.end(panels); ++p) {
    const int64_t units = std::min<int64_t>(panel_width, layer.hidden - p * panel_width);
    for (int64_t k = 0; k < rows; ++k) {
      float* to = out + (p * rows + k) * panel_width;
      __builtin_memcpy(to, layer.weight + k * layer.weight_stride + p * panel_width, units * sizeof(float));
      if (units < panel_width) __builtin_memset(to + units, 0, (panel_width - units) * sizeof(float));
    }
  }
}

// sums[r][v] = the sum over k of rows[r][k] * weights[k * panel_width + v * lanes]. With few rows, even and odd k are
// summed apart, because one chain of dependent additions per accumulator would leave the multipliers idle. Weights
// that exceed the nearer caches are loaded again at every step, so they are prefetched 2 KiB ahead.
template <int Rows, int Vectors>
UQ_INLINE void multiply(int64_t depth, const float* const* rows, const float* weights, Floats (*sums)[3]) {
  constexpr int chains = 2 * Rows <= block ? 2 : 1;
  Floats partial[chains][Rows][Vectors] = {};
  int64_t k = 0;
  const auto add = [&](int chain, int64_t at) __attribute__((always_inline)) {
    for (int line = 0; line < panel_width; line += 16) __builtin_prefetch(weights + at * panel_width + line + 512);
    Floats w[Vectors];
    for (int v = 0; v < Vectors; ++v) w[v] = load(weights + at * panel_width + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Floats x = broadcast(rows[r][at]);
      for (int v = 0; v < Vectors; ++v) partial[chain][r][v] = multiply_add(x, w[v], partial[chain][r][v]);
    }
  };
  for (; k + chains <= depth; k += chains) {
    for (int chain = 0; chain < chains; ++chain) add(chain, k + chain);
  }
  if (k < depth) add(0, k);
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      sums[r][v] = chains == 2 ? partial[0][r][v] + partial[chains - 1][r][v] : partial[0][r][v];
    }
  }
}

// The same for `count` rows, at most `block`; nothing is written if there are none.
template <int Vectors, int Rows = block>
UQ_INLINE void multiply_rows(int64_t count, int64_t depth, const float* const* rows, const float* weights,
                             Floats (*sums)[3]) {
  if (count == Rows) return multiply<Rows, Vectors>(depth, rows, weights, sums);
  if constexpr (Rows > 1) multiply_rows<Vectors, Rows - 1>(count, depth, rows, weights, sums);
}

// The state of the sequence ranked i before the step.
UQ_INLINE const float* previous_state(const GruLayer& layer, const float* out, const Step& step, int64_t i,
                                      const float* zeros) {
  if (step.t > 0) return out + (step.ranked.start[i] + step.t - 1) * layer.hidden;
  return layer.h0 ? layer.h0 + step.ranked.sequence[i] * layer.h0_stride : zeros;
}

// Calls body(get, put), where get and put load and store the hidden units [unit, unit + lanes) of a row, as far as they
// exist.
template <class Body>
UQ_INLINE void at_units(const GruLayer& layer, int64_t unit, const Body& body) {
  for_each_vector(std::min<int64_t>(lanes, layer.hidden - unit), [&](auto get, auto put) {
    body([get, unit](const float* p) { return get(p + unit); }, [put, unit](float* p, Floats x) { put(p + unit, x); });
  });
}

// Computes the gates and the new state of one token at the hidden units that get and put access.
template <class Get, class Put>
UQ_INLINE void advance(const GruLayer& layer, const GruForward& pass, int64_t token, const float* previous,
                       const float* bias, const Floats* sums, const Get& get, const Put& put) {
  const int64_t hidden = layer.hidden;
  const float* in = pass.inputs + token * pass.inputs_stride;
  const Floats reset = sigmoid(get(in) + (sums[0] + get(bias)));
  const Floats update = sigmoid(get(in + hidden) + (sums[1] + get(bias + hidden)));
  const Floats recurrent = sums[2] + get(bias + 2 * hidden);
  const Floats fresh = hyperbolic_tangent(multiply_add(reset, recurrent, get(in + 2 * hidden)));
  put(pass.out + token * hidden, multiply_add(update, get(previous) - fresh, fresh));
  if (!pass.gates) return;
  float* gates = pass.gates + token * 3 * hidden;
  put(gates, reset);
  put(gates + hidden, update);
  put(gates + 2 * hidden, fresh);
  put(pass.recurrent_new + token * hidden, recurrent);
}

inline void forward_step(const GruLayer& layer, const GruForward& pass, const Step& step, const Constants& constants,
                         const Member& member) {
  const int64_t hidden = layer.hidden, panels = (hidden + lanes - 1) / lanes;
  const int64_t groups = (step.running + block - 1) / block, tasks = panels * groups;
  const float* bias = pass.bias ? pass.bias : constants.zeros;
  for (int64_t task = member.begin(tasks); task < member.end(tasks); ++task) {
    const int64_t p = task / groups, first = task % groups * block;
    const int64_t count = std::min<int64_t>(block, step.running - first);
    const float* rows[block];
    for (int64_t r = 0; r < count; ++r) rows[r] = previous_state(layer, pass.out, step, first + r, constants.zeros);
    Floats sums[block][3];
    multiply_rows<3>(count, hidden, rows, constants.weights + p * hidden * panel_width, sums);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t token = step.ranked.start[first + r] + step.t;
      at_units(layer, p * lanes, [&](const auto& get, const auto& put) {
        advance(layer, pass, token, rows[r], bias, sums[r], get, put);
      });
    }
  }
}

// Computes the gradients of one token, given `grad`, that of its state. Returns the part of `grad` that reaches the
// previous state directly, not through the gates.
template <class Get, class Put>
UQ_INLINE Floats backpropagate(const GruLayer& layer, const GruBackward& pass, int64_t token, const float* previous,
                         Floats grad, const Get& get, const Put& put) {
  const int64_t hidden = layer.hidden;
  const float* gates = pass.gates + token * 3 * hidden;
  const Floats reset = get(gates), update = get(gates + hidden), fresh = get(gates + 2 * hidden);
  const Floats before = get(previous);
  if (pass.grad_out) grad += get(pass.grad_out + token * hidden);
  const Floats d_fresh = grad * (1.0f - update) * (1.0f - fresh * fresh);
  const Floats d_update = grad * (before - fresh) * update * (1.0f - update);
  const Floats d_reset = d_fresh * get(pass.recurrent_new + token * hidden) * reset * (1.0f - reset);
  float* d_inputs = pass.d_inputs + token * 3 * hidden;
  float* d_recurrent = pass.d_recurrent + token * 3 * hidden;
  put(d_inputs, d_reset);
  put(d_inputs + hidden, d_update);
  put(d_inputs + 2 * hidden, d_fresh);
  put(d_recurrent, d_reset);
  put(d_recurrent + hidden, d_update);
  put(d_recurrent + 2 * hidden, d_fresh * reset);
  put(pass.previous + token * hidden, before);
  return grad * update;
}

// Step t of the backward pass: the gradient of the states after step t is what comes back through the recurrent product
// of step t + 1 plus what bypasses it, which is in d_state. From it follow the gradients of step t's gates.
template <int Vectors>
inline void backward_tile(const GruLayer& layer, const GruBackward& pass, const Step& step, const Constants& constants,
                          int64_t p, int64_t first) {
  const int64_t hidden = layer.hidden;
  const int64_t count = std::min<int64_t>(block, step.running - first);
  const float* rows[block];
  int64_t continuing = 0;  // sequences that have a step t + 1
  for (; continuing < count && step.ranked.length[first + continuing] > step.t + 1; ++continuing) {
    rows[continuing] = pass.d_recurrent + (step.ranked.start[first + continuing] + step.t + 1) * 3 * hidden;
  }
  Floats sums[block][3] = {};
  multiply_rows<Vectors>(continuing, 3 * hidden, rows, constants.weights + p * 3 * hidden * panel_width, sums);
  for (int64_t r = 0; r < count; ++r) {
    const int64_t token = step.ranked.start[first + r] + step.t;
    float* d_state = pass.d_state + step.ranked.sequence[first + r] * hidden;
    const float* previous = previous_state(layer, pass.out, step, first + r, constants.zeros);
    for (int v = 0; v < Vectors; ++v) {
      at_units(layer, p * panel_width + v * lanes, [&](const auto& get, const auto& put) {
        const Floats grad = get(d_state) + sums[r][v];
        put(d_state, step.t < 0 ? grad : backpropagate(layer, pass, token, previous, grad, get, put));
      });
    }
  }
}

inline void backward_step(const GruLayer& layer, const GruBackward& pass, const Step& step, const Constants& constants,
                          const Member& member) {
  const int64_t panels = (layer.hidden + panel_width - 1) / panel_width;
  const int64_t groups = (step.running + block - 1) / block, tasks = panels * groups;
  for (int64_t task = member.begin(tasks); task < member.end(tasks); ++task) {
    const int64_t p = task / groups, first = task % groups * block, left = layer.hidden - p * panel_width;
    const auto tile = left <= lanes ? backward_tile<1> : left <= 2 * lanes ? backward_tile<2> : backward_tile<3>;
    tile(layer, pass, step, constants, p, first);
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
