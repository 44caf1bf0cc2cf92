#pragma once

#include <cstdint>

#include "cpu/bf16.h"
#include "cpu/packed.h"

namespace uqabench {

// (tokens, heads, width), contiguous in `to`: components c and c + width / 2 of each token turned by the angle whose
// cosine and sine are table[position][c] and table[position][c + width / 2], its position counted from the start of its
// sequence. T: float or Bf16.
template <class T>
struct Rope {
  HeadsOf<T> q, k;
  int64_t q_heads, k_heads, width;
  const float* table;  // (positions, width), at least as many positions as the longest sequence has tokens
  const int64_t* offsets;
  int64_t sequences;
  bool is_inverse;  // turns by the negative angle
  int threads;
};

template <class T>
void rope(const Rope<T>& args, T* q, T* k);

}  // namespace uqabench
