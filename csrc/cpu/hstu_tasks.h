// What the drivers of HSTU attention share, with limits and without.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/hstu_attention.h"
#include "cpu/time_buckets.h"

namespace uqabench {

// The heads of a task share their time buckets, so with a time bias tasks are as large as leaves two for each thread.
inline std::vector<HeadRange> hstu_tasks(const HstuAttention& args) {
  if (!args.time_bias) return split(args, 1);
  return split(args, std::clamp<int64_t>(args.sequences * args.heads / (2 * args.threads), 1, args.heads));
}

inline TimeBuckets hstu_buckets(const HstuAttention& args) {
  return TimeBuckets(args.bucket_starts, args.time_bias ? args.buckets - 1 : 0);
}

// The accumulators of the tables' gradients, one for each head of each sequence; they are added in a fixed order
// afterwards.
class HstuTableSums {
 public:
  // `sides`: 1 where no key is later than its query, else 2.
  HstuTableSums(const HstuAttention& args, int sides)
      : sides_(sides),
        position_(args.position_bias ? sides * args.tokens() * args.heads : 0, 0.0f),
        time_(args.time_bias ? args.sequences * args.heads * args.buckets : 0, 0.0f) {}

  // (sides * length), by i - j from 0 or, with two sides, from -length; null where there is no such table.
  float* position_of(const HstuAttention& args, int64_t b, int64_t h) {
    const int64_t before = args.offsets[b] * args.heads + h * args.length(b);
    return args.position_bias ? position_.data() + sides_ * before : nullptr;
  }
  // (buckets), or null.
  float* time_of(const HstuAttention& args, int64_t b, int64_t h) {
    return args.time_bias ? time_.data() + (b * args.heads + h) * args.buckets : nullptr;
  }

  void write(const HstuAttention& args, const HstuGradients& gradients) {
    if (args.position_bias) std::fill_n(gradients.position_bias, 2 * args.max_len - 1, 0.0f);
    if (args.time_bias) std::fill_n(gradients.time_bias, args.buckets, 0.0f);
    for (int64_t b = 0; b < args.sequences; ++b) {
      const int64_t length = args.length(b), zero = (sides_ - 1) * length;
      for (int64_t h = 0; h < args.heads; ++h) {
        if (args.position_bias) {
          const float* part = position_of(args, b, h) + zero;
          float* to = gradients.position_bias + args.max_len - 1;
          for (int64_t r = zero ? 1 - length : 0; r < length; ++r) to[r] += part[r];
        }
        if (args.time_bias) {
          const float* part = time_of(args, b, h);
          for (int64_t k = 0; k < args.buckets; ++k) gradients.time_bias[k] += part[k];
        }
      }
    }
  }

 private:
  int sides_;
  std::vector<float> position_, time_;
};

}  // namespace uqabench
