#pragma once

#include <cstdint>

#include "cpu/packed.h"

namespace uqabench {

// Mamba-2's scan: h_t = exp(step_t A) h_{t-1} + step_t x_t B_t^T, y_t = h_t C_t + D x_t, times SiLU(z_t), where
// step = dt + dt_bias, through softplus if `softplus`. h starts from initial_state, or zero, in each sequence.
struct SsdScan {
  HeadView x, z, b, c;  // x and z (tokens, heads, width), z.data may be null; b and c (tokens, groups, states)
  const float* dt;      // (tokens, heads), rows dt_stride apart
  int64_t dt_stride;
  const float *a, *d, *dt_bias;  // (heads); d and dt_bias may be null
  const float* initial_state;    // (sequences, heads, width, states), contiguous, or null
  const int64_t* offsets;        // (sequences + 1)
  int64_t sequences, heads, width, groups, states;
  bool softplus;
  int threads;

  int64_t tokens() const { return offsets[sequences]; }
  int64_t group(int64_t head) const { return head * groups / heads; }
  int64_t state_size() const { return width * states; }
};

// y (tokens, heads, width) is contiguous and written in full. So are, unless null, `ungated`, which is y before the
// factor SiLU(z), and state (sequences, heads, width, states). The results do not depend on `threads`.
void ssd_scan_forward(const SsdScan& args, float* y, float* ungated, float* state);

// The outputs of the backward pass, each of its input's shape, contiguous and written in full; null where the input is.
struct SsdGradients {
  float *x, *dt, *a, *b, *c, *d, *z, *dt_bias, *initial_state;
};

// The gradients of y and of the final state (contiguous, or null), and `ungated` of the forward pass where there is a
// z.
struct SsdGiven {
  HeadView grad;
  const float *state_grad, *ungated;
};

void ssd_scan_backward(const SsdScan& args, const SsdGiven& given, const SsdGradients& gradients);

}  // namespace uqabench
