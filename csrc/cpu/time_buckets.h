// The bucket of the time-bias table that a gap between two timestamps falls in, by comparison with the integer gaps at
// which the buckets begin.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace uqabench {

class TimeBuckets {
 public:
  // `starts` (count) are the smallest gaps of buckets 1, 2, .... At most two of them may lie within any factor of
  // 1.125, which holds for ceil(exp(0.301 k)).
  TimeBuckets(const int64_t* starts, int64_t count)
      : starts_(starts, starts + count), first_(cells) {
    starts_.resize(count + 2, std::numeric_limits<uint64_t>::max());  // never reached
    // There are sixteen cells per octave. A cell's entry is the bucket in which the cell *before* it begins: a gap
    // above 2^53 may be rounded into the next cell, which must not skip a bucket.
    for (int cell = 1; cell < cells; ++cell) {
      const uint64_t bits = static_cast<uint64_t>(cell - 1 + lowest) << 48;
      double begin;
      std::memcpy(&begin, &bits, sizeof begin);
      first_[cell] = first_[cell - 1];
      while (static_cast<double>(starts_[first_[cell]]) <= begin && first_[cell] < count) ++first_[cell];
    }
  }

  uint8_t of(int64_t a, int64_t b) const {
    const uint64_t ua = static_cast<uint64_t>(a), ub = static_cast<uint64_t>(b);
    const uint64_t gap = std::min(a > b ? ua - ub : ub - ua, largest);
    const double value = static_cast<double>(static_cast<int64_t>(std::max<uint64_t>(gap, 1)));
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    uint8_t bucket = first_[(bits >> 48) - lowest];
    bucket += gap >= starts_[bucket];  // not a branch, as it could not be predicted
    bucket += gap >= starts_[bucket];
    return bucket;
  }

 private:
  static constexpr uint64_t largest = std::numeric_limits<int64_t>::max();
  static constexpr int lowest = 1023 << 4;  // exponent and first four bits of the mantissa of 1.0
  static constexpr int cells = (63 << 4) + 1;  // up to 2^63
  std::vector<uint64_t> starts_;
  std::vector<uint8_t> first_;
};

}  // namespace uqabench
