#pragma once

#include <cstdint>

namespace uqabench {

// (tokens, heads, width) floats; entries of one head of one token are adjacent.
struct HeadView {
  const float* data;
  int64_t token_stride, head_stride;  // in floats

  const float* at(int64_t token, int64_t head) const { return data + token * token_stride + head * head_stride; }
};

// out_i = sum_{j <= i} SiLU(scale * q_i . k_j + bias_ij) / max_len * v_j within each sequence; see the Python operator.
struct HstuAttention {
  HeadView q, k, v;
  const int64_t* offsets;  // (sequences + 1), checked: from 0 to the number of tokens, never falling
  int64_t sequences, heads, width, value_width;
  int64_t max_len;  // no sequence is longer
  float scale;
  const float* position_bias;  // (2 * max_len - 1) or null
  const float* time_bias;      // (buckets) or null
  const int64_t* bucket_starts;  // (buckets - 1): smallest gap of buckets 1, 2, ...; with time_bias
  int64_t buckets;
  const int64_t* timestamps;  // (tokens); with time_bias
  int threads;
};

// Outputs of the backward pass: contiguous, written in full. Bias gradients are null where the bias is.
struct HstuGradients {
  float *q, *k, *v, *position_bias, *time_bias;
};

// out (tokens, heads, value_width), contiguous. Neither result depends on `threads`.
void hstu_attention_forward(const HstuAttention& args, float* out);
void hstu_attention_backward(const HstuAttention& args, const HeadView& grad, const HstuGradients& gradients);

}  // namespace uqabench
