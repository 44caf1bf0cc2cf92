// Numbers of 16 bits, which kernels read and write beside floats; they calculate in floats.
#pragma once

#include <cstdint>

namespace uqabench {

// The upper half of a float. Written: rounded to the nearest, halfway to the even one; NaN stays NaN.
struct Bf16 {
  uint16_t bits;
};

template <class T>
inline constexpr T one = T{1};
template <>
inline constexpr Bf16 one<Bf16> = {0x3f80};

}  // namespace uqabench
