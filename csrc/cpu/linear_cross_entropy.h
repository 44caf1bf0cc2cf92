#pragma once

#include <cstdint>

namespace uqabench {

// losses[t] = log(sum_v exp(l_tv)) - l_ty with the logits l_tv = hidden[t] . weight[v] + bias[v] and y = target[t].
// Candidates v other than y with item_ids[v] = token_ids[t] are left out of the sum: they are y under another index.
//
// hidden (tokens, width) and weight (items, width) have rows `*_stride` floats apart; bias (items), or null for 0;
// token_ids (tokens) and item_ids (items) are null where no candidate is left out; every target lies in [0, items).
// hidden_gradient (tokens, width) and weight_gradient (items, width), contiguous, are set to the gradients of `share`
// times the sum of the losses, unless null. The results do not depend on `threads`.
struct LinearCrossEntropy {
  const float* hidden;
  int64_t hidden_stride;
  const float* weight;
  int64_t weight_stride;
  const int64_t* target;
  const float* bias;
  const int64_t *token_ids, *item_ids;
  float share;
  float *losses, *hidden_gradient, *weight_gradient;
  int64_t tokens, items, width;
  int threads;

  bool has_gradient() const { return hidden_gradient || weight_gradient; }
};

void linear_cross_entropy(const LinearCrossEntropy& args);

}  // namespace uqabench
