#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/selective_scan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/selective_scan.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

ScanRates::ScanRates(const ScanInputs& in)
    : values(channel_groups(in) * ((in.states + scan_states - 1) / scan_states * scan_states) * scan_channels),
      largest(channel_groups(in)),
      states((in.states + scan_states - 1) / scan_states * scan_states) {
  constexpr float log2_e = 1.44269504f;
  parallel_for(channel_groups(in), in.threads, 0, [&](int64_t g, float*) {
    float* to = values.data() + g * states * scan_channels;
    const int64_t first = g * scan_channels, count = std::min(scan_channels, in.channels - first);
    for (int64_t i = 0; i < count; ++i) {
      const float* row = in.A.row(first + i);
      for (int64_t n = 0; n < in.states; ++n) {
        const float rate = std::isnan(row[n]) ? std::nanf("") : row[n] * log2_e;
        to[n * scan_channels + i] = rate;
        largest[g] = std::max(largest[g], std::fabs(rate));
      }
    }
  });
}

std::vector<SequenceRun> sequence_runs(const ScanInputs& in) {
  std::vector<SequenceRun> runs;
  for (int64_t begin = 0; begin < in.sequences;) {
    int64_t end = begin + 1;
    while (end < in.sequences && in.offsets[end] - in.offsets[begin] < 256) ++end;
    runs.push_back({begin, end});
    begin = end;
  }
  return runs;
}

void selective_scan_forward(const ScanInputs& in, const ScanOutputs& out) {
  static constexpr decltype(&baseline::scan) kernels[] = UQ_TABLE(scan);
  const int isa = static_cast<int>(current_isa());
  const ScanRates rates(in);
  const std::vector<SequenceRun> runs = sequence_runs(in);
  const int64_t groups = channel_groups(in);
  parallel_for(static_cast<int64_t>(runs.size()) * groups, in.threads, baseline::scan_scratch(rates),
               [&](int64_t i, float* scratch) {
                 kernels[isa](in, rates, runs[i / groups], i % groups, out, scratch);
               });
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
#include "cpu/scan_chunk.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// Advances the states [n, n + scan_states) of `channels_at_once` channels through a chunk and adds their contributions
// to y (scan_chunk, scan_channels). The rates and the states h are (padded states, scan_channels).
template <bool is_bounded>
inline void advance(const Chunk& chunk, int64_t states, int64_t n, int64_t channel, const float* rates, float* h,
                    float* y) {
  Floats state[scan_states][vectors_at_once], rate[scan_states][vectors_at_once];
  for (int i = 0; i < scan_states; ++i) {
    for (int v = 0; v < vectors_at_once; ++v) {
      const int64_t at = (n + i) * scan_channels + channel + v * lanes;
      state[i][v] = load(h + at);
      rate[i][v] = load(rates + at);
    }
  }
  const float *step = chunk.step + channel, *delta_u = chunk.delta_u + channel, *b = chunk.b + n, *c = chunk.c + n;
  float* sum = y + channel;
  for (int64_t left = chunk.tokens; left > 0; --left) {
    Floats sums[vectors_at_once];
    for (int v = 0; v < vectors_at_once; ++v) sums[v] = load(sum + v * lanes);
    for (int i = 0; i < scan_states; ++i) {
      for (int v = 0; v < vectors_at_once; ++v) {
        const Floats decay = power_of_two<is_bounded>(load(step + v * lanes) * rate[i][v]);
        state[i][v] = multiply_add(broadcast(b[i]), load(delta_u + v * lanes), decay * state[i][v]);
        sums[v] = multiply_add(broadcast(c[i]), state[i][v], sums[v]);
      }
    }
    for (int v = 0; v < vectors_at_once; ++v) store(sum + v * lanes, sums[v]);
    step += scan_channels, delta_u += scan_channels, sum += scan_channels, b += states, c += states;
  }
  for (int i = 0; i < scan_states; ++i) {
    for (int v = 0; v < vectors_at_once; ++v) store(h + (n + i) * scan_channels + channel + v * lanes, state[i][v]);
  }
}

// Writes the outputs, given y without D u and the gate.
inline void write_outputs(const ScanInputs& in, const ChannelGroup& group, const Chunk& chunk, const float* y,
                          const ScanOutputs& out) {
  const float* skip = in.D ? in.D + group.first : nullptr;
  for (int64_t t = 0; t < chunk.tokens; ++t) {
    const int64_t token = chunk.first + t, to = token * in.channels + group.first;
    for_each_vector(group.count, [&](auto get, auto put) UQ_INLINED {
      Floats x = get(y + t * scan_channels);
      if (skip) x = multiply_add(get(skip), get(in.u.row(token) + group.first), x);
      if (out.ungated) put(out.ungated + to, x);
      if (in.z.data) {
        const Floats z = get(in.z.row(token) + group.first);
        x *= z * sigmoid(z);
      }
      put(out.y + to, x);
    });
  }
}

inline int64_t scan_scratch(const ScanRates& rates) {
  return scan_chunk * scan_channels + rates.states * scan_channels + Chunk::scratch(rates.states);
}

inline void scan(const ScanInputs& in, const ScanRates& rates, const SequenceRun& run, int64_t g,
                 const ScanOutputs& out, float* scratch) {
  const ChannelGroup group(in, g);
  float* y = scratch;
  float* h = y + scan_chunk * scan_channels;
  Chunk chunk(h + rates.states * scan_channels, rates.states);
  for (int64_t s = run.begin; s < run.end; ++s) {
    const int64_t begin = in.offsets[s], end = in.offsets[s + 1], size = in.channels * in.states;
    read_state(in.initial_state ? in.initial_state + s * size : nullptr, in.states, group, rates.states, h);
    for (int64_t t = begin; t < end; t += scan_chunk) {
      if (out.kept && t > begin) {
        float* to = out.kept + kept_index(begin, t) * size + group.first;
        for (int64_t n = 0; n < in.states; ++n) {
          std::memcpy(to + n * in.channels, h + n * scan_channels, group.count * sizeof(float));
        }
      }
      chunk.read(in, group, rates, t, std::min(end, t + scan_chunk));
      std::memset(y, 0, chunk.tokens * scan_channels * sizeof(float));
      for (int64_t channel = 0; channel < group.width; channel += channels_at_once) {
        for (int64_t n = 0; n < rates.states; n += scan_states) {
          (chunk.is_bounded ? advance<true> : advance<false>)(chunk, rates.states, n, channel, rates.group(g), h, y);
        }
      }
      write_outputs(in, group, chunk, y, out);
    }
    if (out.state) write_state(h, in.states, group, out.state + s * size);
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
