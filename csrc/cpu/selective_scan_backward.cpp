#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include <algorithm>
#include <cstring>

#include "cpu/parallel.h"
#include "cpu/scan_partials.h"
#include "cpu/selective_scan.h"

#define UQ_SOURCE "cpu/selective_scan_backward.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {
namespace {

// Sums the groups' gradients of B and C in the order of the groups.
void add_groups(const ScanInputs& in, const ScanPartials& partials, const ScanGradients& gradients) {
  constexpr int64_t tokens = 64;
  const int64_t states = partials.states, groups = channel_groups(in);
  parallel_for((in.tokens + tokens - 1) / tokens, in.threads, 0, [&](int64_t i, float*) {
    const int64_t begin = i * tokens, end = std::min(in.tokens, begin + tokens);
    for (int64_t t = begin; t < end; ++t) {
      float* to[] = {gradients.B + t * in.states, gradients.C + t * in.states};
      for (int64_t g = 0; g < groups; ++g) {
        for (int j = 0; j < 2; ++j) {
          const float* from = partials.tokens.get() + ((g * in.tokens + t) * 2 + j) * states;
          for (int64_t n = 0; n < in.states; ++n) to[j][n] = g == 0 ? from[n] : to[j][n] + from[n];
        }
      }
    }
  });
}

// Sums the gradients of A, D and delta_bias over the runs of sequences in their order.
void add_runs(const ScanInputs& in, const ScanPartials& partials, int64_t runs, const ScanGradients& gradients) {
  const int64_t groups = channel_groups(in), size = (partials.states + 2) * scan_channels;
  parallel_for(groups, in.threads, size, [&](int64_t g, float* sums) {
    std::memset(sums, 0, size * sizeof(float));
    for (int64_t run = 0; run < runs; ++run) {
      const float* from = partials.parameters.get() + (run * groups + g) * size;
      for (int64_t i = 0; i < size; ++i) sums[i] += from[i];
    }
    const int64_t first = g * scan_channels, count = std::min(scan_channels, in.channels - first);
    for (int64_t i = 0; i < count; ++i) {
      float* to = gradients.A + (first + i) * in.states;
      for (int64_t n = 0; n < in.states; ++n) to[n] = sums[n * scan_channels + i];
    }
    const float* rest = sums + partials.states * scan_channels;
    if (gradients.D) std::copy(rest, rest + count, gradients.D + first);
    const float* bias = rest + scan_channels;
    if (gradients.delta_bias) std::copy(bias, bias + count, gradients.delta_bias + first);
  });
}

}  // namespace

void selective_scan_backward(const ScanInputs& in, const ScanResult& result, const ScanGradients& gradients) {
  static constexpr decltype(&baseline::scan_backward) kernels[] = UQ_TABLE(scan_backward);
  static constexpr decltype(&baseline::scan_backward_scratch) scratch_sizes[] = UQ_TABLE(scan_backward_scratch);
  const int isa = static_cast<int>(current_isa());
  const ScanRates rates(in);
  const std::vector<SequenceRun> runs = sequence_runs(in);
  const int64_t groups = channel_groups(in), count = static_cast<int64_t>(runs.size());
  const ScanPartials partials(in, rates.states, count);
  parallel_for(count * groups, in.threads, scratch_sizes[isa](rates), [&](int64_t i, float* scratch) {
    float* parameters = partials.parameters.get() + i * (rates.states + 2) * scan_channels;
    float* tokens = partials.tokens.get() + i % groups * in.tokens * 2 * rates.states;
    kernels[isa](in, rates, result, runs[i / groups], i % groups, tokens, parameters, gradients, scratch);
  });
  add_groups(in, partials, gradients);
  add_runs(in, partials, count, gradients);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
#include "cpu/lane_sums.h"
#include "cpu/scan_chunk.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// What a task holds of a chunk in its scratch memory: a row of scan_channels floats for each token, unless said
// otherwise.
struct BackwardScratch {
  Chunk chunk;
  float* grad;                // the gradient of y before its gate
  float *g_step, *g_delta_u;  // g_step: the gradient of step through the decays, divided by ln 2
  float *h, *g_h;             // (padded states, scan_channels): the state before the chunk; the gradient of that after
  float *states, *decays;     // scan_states states of `channels_at_once` channels: before the first token, after each
  float* spread;              // (scan_chunk, 2, scan_states, lanes): gradients of b and c before the sum over the lanes

  static constexpr int64_t rows = scan_chunk * scan_channels;
  static constexpr int64_t cells = scan_states * channels_at_once;

  static int64_t scratch(int64_t states) {
    return Chunk::scratch(states) + 3 * rows + 2 * states * scan_channels + (2 * scan_chunk + 1) * cells +
           scan_chunk * 2 * scan_states * lanes;
  }

  BackwardScratch(float* memory, int64_t states_padded)
      : chunk(memory, states_padded),
        grad(memory + Chunk::scratch(states_padded)),
        g_step(grad + rows),
        g_delta_u(g_step + rows),
        h(g_delta_u + rows),
        g_h(h + states_padded * scan_channels),
        states(g_h + states_padded * scan_channels),
        decays(states + (scan_chunk + 1) * cells),
        spread(decays + scan_chunk * cells) {}
};

// Recomputes the states [n, n + scan_states) of `channels_at_once` channels in the chunk, in work.states and
// work.decays.
template <bool is_bounded>
UQ_INLINE void recompute(const BackwardScratch& work, int64_t padded, int64_t n, int64_t channel, const float* rates) {
  Floats state[scan_states][vectors_at_once], rate[scan_states][vectors_at_once];
  const float *step = work.chunk.step + channel, *delta_u = work.chunk.delta_u + channel, *b = work.chunk.b + n;
  float *states = work.states, *decays = work.decays;
  for (int i = 0; i < scan_states; ++i) {
    for (int v = 0; v < vectors_at_once; ++v) {
      const int64_t at = (n + i) * scan_channels + channel + v * lanes;
      state[i][v] = load(work.h + at);
      rate[i][v] = load(rates + at);
      store(states + i * channels_at_once + v * lanes, state[i][v]);
    }
  }
  for (int64_t left = work.chunk.tokens; left > 0; --left) {
    states += BackwardScratch::cells;
    for (int i = 0; i < scan_states; ++i) {
      for (int v = 0; v < vectors_at_once; ++v) {
        const Floats decay = power_of_two<is_bounded>(load(step + v * lanes) * rate[i][v]);
        state[i][v] = multiply_add(broadcast(b[i]), load(delta_u + v * lanes), decay * state[i][v]);
        store(decays + i * channels_at_once + v * lanes, decay);
        store(states + i * channels_at_once + v * lanes, state[i][v]);
      }
    }
    step += scan_channels, delta_u += scan_channels, b += padded, decays += BackwardScratch::cells;
  }
}

// Goes back through the chunk: adds to g_step, g_delta_u, spread and `g_rates` (padded states, scan_channels), and
// takes g_h to the chunk's start.
UQ_INLINE void backpropagate(const BackwardScratch& work, int64_t padded, int64_t n, int64_t channel,
                             const float* rates, float* g_rates) {
  Floats g_state[scan_states][vectors_at_once], g_rate[scan_states][vectors_at_once];
  Floats rate[scan_states][vectors_at_once];
  for (int i = 0; i < scan_states; ++i) {
    for (int v = 0; v < vectors_at_once; ++v) {
      const int64_t at = (n + i) * scan_channels + channel + v * lanes;
      g_state[i][v] = load(work.g_h + at);
      g_rate[i][v] = load(g_rates + at);
      rate[i][v] = load(rates + at);
    }
  }
  const int64_t last = work.chunk.tokens - 1, row = last * scan_channels + channel;
  const float *step = work.chunk.step + row, *delta_u = work.chunk.delta_u + row, *grad = work.grad + row;
  const float *b = work.chunk.b + last * padded + n, *c = work.chunk.c + last * padded + n;
  const float* states = work.states + last * BackwardScratch::cells;
  const float* decays = work.decays + last * BackwardScratch::cells;
  float *to_step = work.g_step + row, *to_delta_u = work.g_delta_u + row;
  float* spread = work.spread + last * 2 * scan_states * lanes;
  for (int64_t left = work.chunk.tokens; left > 0; --left) {
    Floats g_step[vectors_at_once], g_delta_u[vectors_at_once];
    for (int v = 0; v < vectors_at_once; ++v) {
      g_step[v] = load(to_step + v * lanes);
      g_delta_u[v] = load(to_delta_u + v * lanes);
    }
    for (int i = 0; i < scan_states; ++i) {
      Floats g_b = load(spread + i * lanes), g_c = load(spread + (scan_states + i) * lanes);
      for (int v = 0; v < vectors_at_once; ++v) {
        const int64_t at = i * channels_at_once + v * lanes;
        Floats& g = g_state[i][v];
        g = multiply_add(broadcast(c[i]), load(grad + v * lanes), g);
        g_c = multiply_add(load(states + BackwardScratch::cells + at), load(grad + v * lanes), g_c);
        g_b = multiply_add(load(delta_u + v * lanes), g, g_b);
        g_delta_u[v] = multiply_add(broadcast(b[i]), g, g_delta_u[v]);
        g *= load(decays + at);  // now the gradient of the state before this token
        const Floats g_exponent = g * load(states + at);
        g_rate[i][v] = multiply_add(load(step + v * lanes), g_exponent, g_rate[i][v]);
        g_step[v] = multiply_add(rate[i][v], g_exponent, g_step[v]);
      }
      store(spread + i * lanes, g_b);
      store(spread + (scan_states + i) * lanes, g_c);
    }
    for (int v = 0; v < vectors_at_once; ++v) {
      store(to_step + v * lanes, g_step[v]);
      store(to_delta_u + v * lanes, g_delta_u[v]);
    }
    step -= scan_channels, delta_u -= scan_channels, grad -= scan_channels, b -= padded, c -= padded;
    to_step -= scan_channels, to_delta_u -= scan_channels, spread -= 2 * scan_states * lanes;
    states -= BackwardScratch::cells, decays -= BackwardScratch::cells;
  }
  for (int i = 0; i < scan_states; ++i) {
    for (int v = 0; v < vectors_at_once; ++v) {
      const int64_t at = (n + i) * scan_channels + channel + v * lanes;
      store(work.g_h + at, g_state[i][v]);
      store(g_rates + at, g_rate[i][v]);
    }
  }
}

template <bool is_bounded>
inline void differentiate(const BackwardScratch& work, int64_t padded, int64_t n, int64_t channel, const float* rates,
                          float* g_rates) {
  recompute<is_bounded>(work, padded, n, channel, rates);
  backpropagate(work, padded, n, channel, rates, g_rates);
}

// Sums work.spread over its lanes and writes the result to `tokens` (tokens of the chunk, 2, padded states).
inline void write_sums(const BackwardScratch& work, int64_t padded, int64_t n, float* tokens) {
  constexpr int64_t vectors = scan_chunk * 2 * scan_states;
  static_assert(vectors % lanes == 0);
  float sums[vectors];
  for (int64_t i = 0; i < work.chunk.tokens * 2 * scan_states; i += lanes) {
    Floats x[lanes];
    for (int j = 0; j < lanes; ++j) x[j] = load(work.spread + (i + j) * lanes);
    sum_each(x);
    store(sums + i, x[0]);
  }
  for (int64_t i = 0; i < work.chunk.tokens * 2; ++i) {
    for (int j = 0; j < scan_states; ++j) tokens[i * padded + n + j] = sums[i * scan_states + j];
  }
}

// Computes the gradient of y before its gate, in work.grad, and the gradient of z.
inline void read_gradients(const ScanInputs& in, const ScanResult& result, const ChannelGroup& group,
                           const BackwardScratch& work, const ScanGradients& gradients) {
  for (int64_t t = 0; t < work.chunk.tokens; ++t) {
    const int64_t token = work.chunk.first + t, at = token * in.channels + group.first;
    for_each_vector(group.count, [&](auto get, auto put) UQ_INLINED {
      Floats grad = get(result.grad.row(token) + group.first);
      if (in.z.data) {
        const Floats z = get(in.z.row(token) + group.first), share = sigmoid(z);
        const Floats derivative = share * multiply_add(z, 1.0f - share, broadcast(1.0f));
        put(gradients.z + at, grad * get(result.ungated + at) * derivative);
        grad *= z * share;
      }
      put(work.grad + t * scan_channels, grad);
    });
  }
}

// Writes the gradients of u and delta, and adds those of D and delta_bias to `sums` (2, scan_channels).
inline void write_gradients(const ScanInputs& in, const ChannelGroup& group, const BackwardScratch& work, float* sums,
                            const ScanGradients& gradients) {
  const float* skip = in.D ? in.D + group.first : nullptr;
  for (int64_t t = 0; t < work.chunk.tokens; ++t) {
    const int64_t token = work.chunk.first + t, to = token * in.channels + group.first, at = t * scan_channels;
    for_each_vector(group.count, [&](auto get, auto put) UQ_INLINED {
      const Floats u = get(in.u.row(token) + group.first), grad = get(work.grad + at);
      const Floats g_delta_u = get(work.g_delta_u + at);
      Floats g_u = g_delta_u * get(work.chunk.step + at);
      if (skip) g_u = multiply_add(get(skip), grad, g_u);
      Floats g_delta = multiply_add(g_delta_u, u, get(work.g_step + at) * 0.693147181f);
      if (in.softplus) g_delta *= sigmoid(biased_delta(in, group, get, in.delta.row(token) + group.first));
      put(sums, multiply_add(grad, u, get(sums)));
      put(sums + scan_channels, get(sums + scan_channels) + g_delta);
      put(gradients.u + to, g_u);
      put(gradients.delta + to, g_delta);
    });
  }
}

inline int64_t scan_backward_scratch(const ScanRates& rates) { return BackwardScratch::scratch(rates.states); }

// The backward pass of one task, whose partial gradients go to `tokens` (in.tokens, 2, padded states) and `parameters`
// (padded states + 2, scan_channels).
inline void scan_backward(const ScanInputs& in, const ScanRates& rates, const ScanResult& result,
                          const SequenceRun& run, int64_t g, float* tokens, float* parameters,
                          const ScanGradients& gradients, float* scratch) {
  const ChannelGroup group(in, g);
  const int64_t padded = rates.states, size = in.channels * in.states;
  BackwardScratch work(scratch, padded);
  std::memset(work.grad, 0, BackwardScratch::rows * sizeof(float));
  std::memset(work.h, 0, padded * scan_channels * sizeof(float));
  std::memset(parameters, 0, (padded + 2) * scan_channels * sizeof(float));
  for (int64_t s = run.begin; s < run.end; ++s) {
    const int64_t begin = in.offsets[s], end = in.offsets[s + 1];
    read_state(result.grad_state ? result.grad_state + s * size : nullptr, in.states, group, padded, work.g_h);
    const int64_t chunks = (end - begin + scan_chunk - 1) / scan_chunk;
    for (int64_t t = begin + (chunks - 1) * scan_chunk; t >= begin; t -= scan_chunk) {
      if (t > begin) {
        const float* from = result.kept + kept_index(begin, t) * size + group.first;
        for (int64_t n = 0; n < in.states; ++n) {
          std::memcpy(work.h + n * scan_channels, from + n * in.channels, group.count * sizeof(float));
        }
      } else {
        read_state(in.initial_state ? in.initial_state + s * size : nullptr, in.states, group, padded, work.h);
      }
      work.chunk.read(in, group, rates, t, std::min(end, t + scan_chunk));
      read_gradients(in, result, group, work, gradients);
      std::memset(work.g_step, 0, 2 * BackwardScratch::rows * sizeof(float));
      for (int64_t n = 0; n < padded; n += scan_states) {
        std::memset(work.spread, 0, work.chunk.tokens * 2 * scan_states * lanes * sizeof(float));
        for (int64_t channel = 0; channel < group.width; channel += channels_at_once) {
          (work.chunk.is_bounded ? differentiate<true> : differentiate<false>)(work, padded, n, channel,
                                                                               rates.group(g), parameters);
        }
        write_sums(work, padded, n, tokens + t * 2 * padded);
      }
      write_gradients(in, group, work, parameters + padded * scan_channels, gradients);
    }
    if (gradients.initial_state) write_state(work.g_h, in.states, group, gradients.initial_state + s * size);
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
