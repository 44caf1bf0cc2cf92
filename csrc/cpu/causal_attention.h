#pragma once

#include <cstdint>

#include "cpu/packed.h"

namespace uqabench {

// out_i = sum_{j <= i} softmax_j(scale * q_i . k_j) v_j within each sequence.
//
// out (tokens, heads, value_width) and log_sums (tokens, heads), the logarithm of each softmax's denominator, are
// contiguous and written in full. The results do not depend on `threads`.
void causal_attention_forward(const AttentionInputs& in, float* out, float* log_sums);

// The results of the forward pass, and the gradient of `out`.
struct CausalAttentionResult {
  HeadView grad, out;
  const float* log_sums;
};

// The outputs of the backward pass, contiguous and written in full.
struct CausalGradients {
  float *q, *k, *v;
};

void causal_attention_backward(const AttentionInputs& in, const CausalAttentionResult& result,
                               const CausalGradients& gradients);

}  // namespace uqabench
