#pragma once

#include <cstdint>
#include <vector>

namespace uqabench {

// Row t begins at data + t * stride; data is null where the input is absent.
struct FloatRows {
  const float* data;
  int64_t stride;

  const float* row(int64_t t) const { return data + t * stride; }
};

// Tokens between two states that the forward pass keeps for the backward pass.
constexpr int64_t scan_chunk = 32;

// h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t, y_t = (h_t C_t + D u_t) * SiLU(z_t), h anew in each sequence. u,
// delta, z (tokens, channels), B, C (tokens, states), A (channels, states); D and delta_bias (channels) and
// initial_state (sequences, channels, states) contiguous or null. Offsets rise from 0 to `tokens`. No result depends on
// `threads`.
struct ScanInputs {
  FloatRows u, delta, A, B, C, z;
  const float *D, *delta_bias, *initial_state;
  const int64_t* offsets;
  int64_t sequences, tokens, channels, states;
  bool softplus;
  int threads;
};

// y (tokens, channels), state (sequences, channels, states) after each sequence or null. For the backward pass, null if
// there is none: `kept` (tokens / scan_chunk, states, channels), the states at the start of all chunks but a sequence's
// first, and `ungated` (tokens, channels), y before its gate, null where there is no z too.
struct ScanOutputs {
  float *y, *state, *kept, *ungated;
};

// Gradients of the inputs of the same names, contiguous; null where the input is absent.
struct ScanGradients {
  float *u, *delta, *A, *B, *C, *D, *z, *delta_bias, *initial_state;
};

// What the forward pass kept, and the gradients of y and of the state (null: none).
struct ScanResult {
  const float *kept, *ungated;
  FloatRows grad;
  const float* grad_state;
};

void selective_scan_forward(const ScanInputs& in, const ScanOutputs& out);
void selective_scan_backward(const ScanInputs& in, const ScanResult& result, const ScanGradients& gradients);

// Where the state at the start of a sequence's chunk, not its first, is kept: no two share a place, and it lies below
// tokens / scan_chunk whatever the offsets, so nobody has to count chunks beforehand.
inline int64_t kept_place(int64_t sequence_start, int64_t token) {
  return sequence_start / scan_chunk + (token - sequence_start) / scan_chunk - 1;
}

// A task takes the channels of one group and the sequences of one run.
constexpr int64_t scan_channels = 32;
constexpr int64_t scan_states = 2;  // the states are padded to a multiple of this

// A, times log2(e), as (groups, padded states, scan_channels), zero in the padding; and each group's largest magnitude.
struct ScanRates {
  std::vector<float> values, largest;
  int64_t states;  // padded

  explicit ScanRates(const ScanInputs& in);
  const float* group(int64_t g) const { return values.data() + g * states * scan_channels; }
};

struct SequenceRun {
  int64_t begin, end;
};

// The sequences in runs of 256 tokens or one sequence, at least.
std::vector<SequenceRun> sequence_runs(const ScanInputs& in);

inline int64_t channel_groups(const ScanInputs& in) { return (in.channels + scan_channels - 1) / scan_channels; }

}  // namespace uqabench
