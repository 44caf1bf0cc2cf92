#pragma once

#include <cstdint>

namespace uqabench {

// rank[t] = number of items v with hidden[t] . weight[v] above that of target[t], or equal and v < target[t]; an item
// whose score is NaN counts, and a NaN target ranks last. hidden (tokens, width) and weight (items, width) have rows
// `*_stride` floats apart; every target lies in [0, items), items < 2^31. The result does not depend on `threads`.
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
