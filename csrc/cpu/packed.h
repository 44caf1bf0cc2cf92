// Packed, ragged sequences of attention heads, and how they are divided into tasks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace uqabench {

// A view of (tokens, heads, width) elements, contiguous in the last dimension.
template <class T>
struct HeadsOf {
  const T* data;
  int64_t token_stride, head_stride;  // in elements

  const T* at(int64_t token, int64_t head) const { return data + token * token_stride + head * head_stride; }
};

using HeadView = HeadsOf<float>;

// The inputs of both attention operators. offsets (sequences + 1) are monotone from 0 to the number of tokens.
struct AttentionInputs {
  HeadView q, k, v;
  const int64_t* offsets;
  int64_t sequences, heads, width, value_width;
  float scale;  // factor of q . k
  int threads;

  int64_t length(int64_t b) const { return offsets[b + 1] - offsets[b]; }
  int64_t tokens() const { return offsets[sequences]; }
  int64_t longest() const {
    int64_t longest = 0;
    for (int64_t b = 0; b < sequences; ++b) longest = std::max(longest, length(b));
    return longest;
  }
};

// The heads [begin, end) of one sequence: one task.
struct HeadRange {
  int64_t sequence, begin, end;
};

// Tasks of up to `heads_each` heads that cover every sequence that is not empty. The longest sequences come first, so
// that no long one is left to run alone at the end.
std::vector<HeadRange> split(const AttentionInputs& in, int64_t heads_each);

}  // namespace uqabench
