#pragma once

#include <cstdint>

#include "cpu/packed.h"

namespace uqabench {

// out_i = sum_{j <= i} SiLU(scale * q_i . k_j + bias_ij) / max_len * v_j within each sequence; see the Python operator.
struct HstuAttention : AttentionInputs {
  int64_t max_len;               // no sequence is longer
  const float* position_bias;    // (2 * max_len - 1) or null
  const float* time_bias;        // (buckets) or null
  const int64_t* bucket_starts;  // (buckets - 1): the smallest gaps of buckets 1, 2, ...; with time_bias
  int64_t buckets;               // at most 256
  const int64_t* timestamps;     // (tokens); with time_bias
};

// Which keys a query sees beyond "its own and earlier"; see kernels/hstu_attention/visible.py.
struct HstuLimits {
  const int64_t* num_targets;  // (sequences) or null
  int64_t max_attn_len;        // 0: no window
  int64_t contextual_seq_len;  // 0: no prefix

  // Whether a query sees exactly its own and the earlier keys.
  bool are_none() const { return !num_targets && max_attn_len == 0 && contextual_seq_len == 0; }
};

// The outputs of the backward pass, contiguous and written in full. A bias's gradient is null where the bias is.
struct HstuGradients {
  float *q, *k, *v, *position_bias, *time_bias;
};

// out (tokens, heads, value_width), contiguous. Neither result depends on `threads`.
void hstu_attention_forward(const HstuAttention& args, float* out);
void hstu_attention_backward(const HstuAttention& args, const HeadView& grad, const HstuGradients& gradients);

// The same within limits. These are kernels of their own, so that the plain ones keep their registers.
void hstu_limited_forward(const HstuAttention& args, const HstuLimits& limits, float* out);
void hstu_limited_backward(const HstuAttention& args, const HstuLimits& limits, const HeadView& grad,
                           const HstuGradients& gradients);

}  // namespace uqabench
