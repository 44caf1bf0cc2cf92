// Which bucket of the time-bias table a gap falls in, by comparison with the integer gaps at which buckets begin.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace uqabench {

class TimeBuckets {
 public:
  TimeBuckets(const int64_t* starts, int64_t count) : starts_(starts, starts + count) {
    // Sixteen cells an octave. A cell's entry is the bucket where the cell *before* begins, so rounding a gap above
    // 2^53 into the next cell cannot skip a bucket; of() then passes at most two starts.
    for (int cell = 1; cell < cells; ++cell) {
      uint64_t bits = static_cast<uint64_t>(cell - 1 + bias) << 48;
      double begin;
      std::memcpy(&begin, &bits, sizeof begin);
      uint8_t bucket = first_[cell - 1];
      while (bucket < starts_.size() && static_cast<double>(starts_[bucket]) <= begin) ++bucket;
      first_[cell] = bucket;
    }
  }

  uint8_t of(int64_t a, int64_t b) const {
    const uint64_t gap = a > b ? static_cast<uint64_t>(a) - static_cast<uint64_t>(b)
                               : static_cast<uint64_t>(b) - static_cast<uint64_t>(a);
    const double value = gap == 0 ? 1.0 : static_cast<double>(gap);
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    uint8_t bucket = first_[(bits >> 48) - bias];
    while (bucket < starts_.size() && gap >= static_cast<uint64_t>(starts_[bucket])) ++bucket;
    return bucket;
  }

 private:
  static constexpr int bias = 1023 << 4;       // exponent and first four bits of the mantissa of 1.0
  static constexpr int cells = 65 << 4;        // up to 2^64
  std::vector<int64_t> starts_;
  uint8_t first_[cells] = {};
};

}  // namespace uqabench
