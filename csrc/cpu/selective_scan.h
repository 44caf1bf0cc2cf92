#pragma once

#include <cstdint>
#include <vector>

namespace uqabench {

// Row t begins at data + t * stride. Null data: the input is absent.
struct FloatRows {
  const float* data;
  int64_t stride;

  const float* row(int64_t t) const { return data + t * stride; }
};

// The forward pass keeps a state every so many tokens for the backward pass.
constexpr int64_t scan_chunk = 32;

// Mamba-1's scan: h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t and y_t = (h_t C_t + D u_t) * SiLU(z_t), where h
// starts from initial_state, or zero, in each sequence. u, delta and z are (tokens, channels), B and C (tokens,
// states), A (channels, states); D and delta_bias (channels) and initial_state (sequences, channels, states) are
// contiguous or null. Offsets are monotone from 0 to `tokens`. The results do not depend on `threads`.
struct ScanInputs {
  FloatRows u, delta, A, B, C, z;
  const float *D, *delta_bias, *initial_state;
  const int64_t* offsets;
  int64_t sequences, tokens, channels, states;
  bool softplus;
  int threads;
};

// y (tokens, channels) and state (sequences, channels, states), after each sequence, or null. For the backward pass,
// and null without one: `kept` (tokens / scan_chunk, states, channels), the states at the start of every chunk but the
// first of each sequence, and `ungated` (tokens, channels), y before its gate, which is also null where there is no z.
struct ScanOutputs {
  float *y, *state, *kept, *ungated;
};

// The gradients of the inputs of the same names, contiguous; null where the input is absent.
struct ScanGradients {
  float *u, *delta, *A, *B, *C, *D, *z, *delta_bias, *initial_state;
};

// What the forward pass kept, and the gradients of y and of the final state (null: none).
struct ScanResult {
  const float *kept, *ungated;
  FloatRows grad;
  const float* grad_state;
};

void selective_scan_forward(const ScanInputs& in, const ScanOutputs& out);
void selective_scan_backward(const ScanInputs& in, const ScanResult& result, const ScanGradients& gradients);

// The index in `kept` of the state at the start of a chunk that is not its sequence's first. No two chunks share an
// index, and every index lies below tokens / scan_chunk whatever the offsets are, so chunks need not be counted
// beforehand.
inline int64_t kept_index(int64_t sequence_start, int64_t token) {
  return sequence_start / scan_chunk + (token - sequence_start) / scan_chunk - 1;
}

// A task takes the channels of one group and the sequences of one run.
constexpr int64_t scan_channels = 32;  // channels of a group
constexpr int64_t scan_states = 2;     // states are processed two at a time, and padded to a multiple of that

// A times log2(e), as (groups, padded states, scan_channels) with zeros in the padding, and each group's largest
// magnitude.
struct ScanRates {
  std::vector<float> values, largest;
  int64_t states;  // padded

  explicit ScanRates(const ScanInputs& in);
  const float* group(int64_t g) const { return values.data() + g * states * scan_channels; }
};

struct SequenceRun {
  int64_t begin, end;
};

// Divides the sequences into runs, each of at least 256 tokens unless it is the last.
std::vector<SequenceRun> sequence_runs(const ScanInputs& in);

inline int64_t channel_groups(const ScanInputs& in) { return (in.channels + scan_channels - 1) / scan_channels; }

}  // namespace uqabench
