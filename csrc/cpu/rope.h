#pragma once

#include <cstdint>

#include "cpu/bf16.h"
#include "cpu/packed.h"

namespace uqabench {

// Rotary position embedding of q and k (tokens, heads, width): components c and c + width / 2 are rotated by the angle
// whose cosine and sine are table[position][c] and table[position][c + width / 2], where a token's position is its
// index in its sequence. The outputs are contiguous. T: float or Bf16.
template <class T>
struct Rope {
  HeadsOf<T> q, k;
  int64_t q_heads, k_heads, width;
  const float* table;  // (positions, width), at least as many positions as the longest sequence has tokens
  const int64_t* offsets;
  int64_t sequences;
  bool is_inverse;  // rotates by the negative angle, as the backward pass does
  int threads;
};

template <class T>
void rope(const Rope<T>& args, T* q, T* k);

}  // namespace uqabench
