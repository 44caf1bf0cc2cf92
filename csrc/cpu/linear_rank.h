#pragma once

#include <cstdint>

namespace uqabench {

// rank[t] is the number of items v whose score hidden[t] . weight[v] is above the target's, or equal to it with v <
// target[t]. An item whose score is NaN counts as above, and a target whose score is NaN ranks last. hidden (tokens,
// width) and weight (items, width) have rows `*_stride` floats apart; every target lies in [0, items), and items <
// 2^31. The result does not depend on `threads`.
struct LinearRank {
  const float* hidden;
  int64_t hidden_stride;
  const float* weight;
  int64_t weight_stride;
  const int64_t* target;
  int64_t* rank;
  int64_t tokens, items, width;
  int threads;
};

void linear_rank(const LinearRank& args);

}  // namespace uqabench
