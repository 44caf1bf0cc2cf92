// What the selective scan's kernels share: which piece of which sequence a block works on, and how a thread reads its
// channels of a step's tokens.
#pragma once

#include "cuda/device.cuh"
#include "cuda/selective_scan.h"

namespace uqabench::cuda {

constexpr int step_tokens = 8;  // tokens that are in registers at a time
static_assert(kept_every == step_tokens);  // so the backward pass finds the state that each of its steps begins with

// One value for each token of a step.
struct alignas(16) Step {
  float at[step_tokens];
};

// Bytes of shared memory for scan_ends and scan_ends_backward: two columns for each thread, and the rows of B or C.
inline int64_t ends_shared(int64_t states, int threads) {
  return states * (2 * threads * sizeof(float) + sizeof(Step));
}

// The piece of a sequence that is one item of work. The pieces of a sequence have consecutive items, and every
// sequence has at least one. `exists` is false for an item that no sequence needs.
struct Piece {
  int64_t first_token;               // of the sequence
  int sequence, length, begin, end;  // tokens of the sequence, of which the piece is [begin, end)
  bool exists;

  __device__ bool is_first() const { return begin == 0; }
  __device__ bool is_last() const { return end == length; }
};

template <class T>
__device__ inline int64_t first_item(const Scan<T>& scan, int64_t sequence) {
  return (scan.offsets[sequence] >> scan.shift) + sequence;
}

template <class T>
__device__ inline Piece find_piece(const Scan<T>& scan, int item) {
  int64_t low = 0, high = scan.sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (first_item(scan, middle) <= item ? low : high) = middle;
  }
  Piece piece;
  piece.sequence = static_cast<int>(low);
  piece.first_token = scan.offsets[low];
  piece.length = static_cast<int>(scan.offsets[low + 1] - piece.first_token);
  const int64_t begin = (item - first_item(scan, low)) << scan.shift;
  piece.begin = static_cast<int>(begin);
  piece.exists = begin == 0 || begin < piece.length;
  const int rest = piece.length - piece.begin, max_tokens = 1 << scan.shift;
  piece.end = piece.begin + (rest < max_tokens ? rest : max_tokens);
  return piece;
}

__device__ inline int tokens_of_step(const Piece& piece, int t) {
  return piece.end - t < step_tokens ? piece.end - t : step_tokens;
}

// The index in `kept` of the state before the sequence's token t > 0, a multiple of kept_every. No two states share an
// index, and every index lies below tokens / kept_every.
__device__ inline int64_t kept_index(const Piece& piece, int t) {
  return piece.first_token / kept_every + t / kept_every - 1;
}

// A thread's channel, or one of its `each` channels, which lie a block's threads apart.
struct Lane {
  int channel;
  bool is_active;  // a block's last channels may lie beyond the width; its threads compute with zeros

  Lane() = default;

  template <class T>
  __device__ explicit Lane(const Scan<T>& scan, int each = 1, int which = 0) {
    channel = static_cast<int>((blockIdx.x % scan.groups * each + which) * blockDim.x + threadIdx.x);
    is_active = channel < scan.channels;
  }
};

// The block's first item of work, and the distance from each of its items to the next.
template <class T>
__device__ inline int block_row(const Scan<T>& scan) {
  return static_cast<int>(blockIdx.x / scan.groups);
}

template <class T>
__device__ inline int block_rows(const Scan<T>& scan) {
  return static_cast<int>(gridDim.x / scan.groups);
}

// Reads A's row of this channel, times log2(e), into a column of `rates`.
template <class T>
__device__ inline void read_rates(const Scan<T>& scan, const Lane& lane, float* rates) {
  for (int n = 0; n < scan.states; ++n) {
    rates[n * blockDim.x] = lane.is_active ? scan.A[lane.channel * scan.states + n] * log2_e : 0.0f;
  }
}

// Reads a state of (sequences, channels, states), or zeros if null, into a column.
template <class T>
__device__ inline void read_state(const Scan<T>& scan, const Lane& lane, const float* from, int64_t sequence,
                                  float* column) {
  const int64_t at = (sequence * scan.channels + lane.channel) * scan.states;
  for (int n = 0; n < scan.states; ++n) column[n * blockDim.x] = from && lane.is_active ? from[at + n] : 0.0f;
}

template <class T>
__device__ inline void write_state(const Scan<T>& scan, const Lane& lane, const float* column, int64_t sequence,
                                   float* to) {
  const int64_t at = (sequence * scan.channels + lane.channel) * scan.states;
  for (int n = 0; n < scan.states && lane.is_active; ++n) to[at + n] = column[n * blockDim.x];
}

// Read and write a column at index `at` of an array (n, states, channels).
template <class T>
__device__ inline void read_column(const Scan<T>& scan, const Lane& lane, const float* from, int64_t at,
                                   float* column) {
  const int states = static_cast<int>(scan.states);
  from += at * scan.states * scan.channels + lane.channel;
#pragma unroll 16  // so many loads are under way at a time
  for (int n = 0; n < states; ++n, from += scan.channels) column[n * blockDim.x] = lane.is_active ? *from : 0.0f;
}

template <class T>
__device__ inline void write_column(const Scan<T>& scan, const Lane& lane, const float* column, int64_t at, float* to) {
  if (!lane.is_active) return;
  const int states = static_cast<int>(scan.states);
  to += at * scan.states * scan.channels + lane.channel;
#pragma unroll 4
  for (int n = 0; n < states; ++n, to += scan.channels) *to = column[n * blockDim.x];
}

// Reads this channel of the tokens [first, first + count), with zeros for the tokens or channels that do not exist.
template <class T>
__device__ inline void read_tokens(const Rows<T>& rows, const Lane& lane, int64_t first, int count, Step& to) {
  const T* from = rows.data + first * rows.stride + lane.channel;
#pragma unroll
  for (int k = 0; k < step_tokens; ++k, from += rows.stride) {
    to.at[k] = lane.is_active && k < count ? load(from) : 0.0f;
  }
}

// Reads the step sizes of these tokens. They are 0 where there is no token, which leaves the state as it is.
template <class T>
__device__ inline void read_steps(const Scan<T>& scan, const Lane& lane, int64_t first, int count, Step& to) {
  read_tokens(scan.delta, lane, first, count, to);
  const float bias = scan.delta_bias && lane.is_active ? scan.delta_bias[lane.channel] : 0.0f;
#pragma unroll
  for (int k = 0; k < step_tokens; ++k) to.at[k] += bias;
  if (scan.softplus) {
#pragma unroll
    for (int k = 0; k < step_tokens; ++k) to.at[k] = softplus(to.at[k]);
  }
#pragma unroll
  for (int k = 0; k < step_tokens; ++k) to.at[k] = lane.is_active && k < count ? to.at[k] : 0.0f;
}

// Copies the rows of B or C of a step to shared memory, one Step for each state. To be called by all threads of a
// block.
template <class T>
__device__ inline void stage(const Scan<T>& scan, const Rows<T>& rows, int64_t first, int count, Step* to) {
  const int states = static_cast<int>(scan.states);
  for (int i = threadIdx.x; i < step_tokens * states; i += blockDim.x) {
    const int k = i % step_tokens, n = i / step_tokens;
    to[n].at[k] = k < count ? load(rows.data + (first + k) * rows.stride + n) : 0.0f;
  }
}

}  // namespace uqabench::cuda
