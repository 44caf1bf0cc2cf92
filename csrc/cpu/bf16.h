// bfloat16 as a storage type: kernels read and write it, and compute in float.
#pragma once

#include <cstdint>

namespace uqabench {

// The upper 16 bits of a float. Conversion rounds to nearest even, and NaN stays NaN.
struct Bf16 {
  uint16_t bits;
};

template <class T>
inline constexpr T one = T{1};
template <>
inline constexpr Bf16 one<Bf16> = {0x3f80};

}  // namespace uqabench
