#pragma once

#include <cstdint>

namespace uqabench {

// y_t = bias + sum_k weight[:, k] * x_{t - (taps - 1) + k} within each sequence, then SiLU if `is_silu`.
//
// x (tokens, channels) and weight (channels, taps) have rows `*_stride` floats apart. initial_state (sequences,
// channels, taps - 1), contiguous, holds the inputs before each sequence, oldest first; null: zeros. bias may be null.
// offsets (sequences + 1) are monotone from 0 to the number of tokens.
struct CausalConv1d {
  const float* x;
  int64_t x_stride;
  const float* weight;
  int64_t weight_stride;
  const float* bias;
  const float* initial_state;
  const int64_t* offsets;
  int64_t sequences, channels, taps;
  bool is_silu;
  int threads;

  int64_t tokens() const { return offsets[sequences]; }
  int64_t length(int64_t b) const { return offsets[b + 1] - offsets[b]; }
};

// out (tokens, channels) and state (sequences, channels, taps - 1), the last inputs of each sequence, are contiguous
// and written in full; state may be null. Results do not depend on `threads`.
void causal_conv1d_forward(const CausalConv1d& in, float* out, float* state);

// The gradients of the forward pass's results. Rows of `out` are `out_stride` floats apart; `state` may be null.
struct CausalConv1dResult {
  const float* out;
  int64_t out_stride;
  const float* state;
};

// The outputs of the backward pass, contiguous and written in full; initial_state may be null.
struct CausalConv1dGradients {
  float *x, *weight, *bias, *initial_state;
};

void causal_conv1d_backward(const CausalConv1d& in, const CausalConv1dResult& grad,
                            const CausalConv1dGradients& gradients);

}  // namespace uqabench
