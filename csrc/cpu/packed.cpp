#include "cpu/packed.h"

namespace uqabench {

std::vector<HeadRange> split(const AttentionInputs& in, int64_t heads_each) {
  std::vector<int64_t> order;
  for (int64_t b = 0; b < in.sequences; ++b) {
    if (in.length(b) > 0) order.push_back(b);
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return in.length(a) > in.length(b); });
  std::vector<HeadRange> tasks;
  for (int64_t b : order) {
    for (int64_t h = 0; h < in.heads; h += heads_each) tasks.push_back({b, h, std::min(h + heads_each, in.heads)});
  }
  return tasks;
}

}  // namespace uqabench
