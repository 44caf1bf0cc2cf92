// The selective scan's forward pass, and the kernel that passes states on from piece to piece in both passes.
//
// Tiling: a thread owns a channel and a warp 32 neighbouring ones, so that rows of (tokens, channels) are accessed
// coalesced. A block of 128 channels goes through one piece of a sequence, step_tokens tokens at a time. Their inputs
// are in registers, and their rows of B and C in shared memory, transposed, so that all lanes read one address. For
// each state in turn a thread advances it over these tokens and adds to their y. States and rates are in shared
// memory, a column for each thread, and are loaded and stored once a step. Tokens are processed sequentially within a
// thread, because a prefix scan over lanes would need about half as many instructions again. Parallelism comes from
// channels, sequences and the pieces of long sequences: scan_ends computes what each piece adds to its state, carry
// combines this from piece to piece, and scan_forward begins each piece with the state at the end of the one before.
// docs/gpu.md says what bounds it.
#pragma once

#include "cuda/selective_scan_steps.cuh"

namespace uqabench::cuda {

inline int64_t forward_shared(int64_t states, int threads) {
  return states * (2 * threads * sizeof(float) + 2 * sizeof(Step));
}

// Writes to `ends` the state after each piece that is not its sequence's last, as if it were zero before the piece,
// and to `totals` the sum of the piece's step sizes.
template <class T>
__global__ void __launch_bounds__(128) scan_ends(const Scan<T> scan) {
  UQ_SHARED(shared);
  const Lane lane(scan);
  float *rates = shared + threadIdx.x, *h = rates + scan.states * blockDim.x;
  Step* B = reinterpret_cast<Step*>(shared + 2 * scan.states * blockDim.x);
  read_rates(scan, lane, rates);
  for (int item = block_row(scan); item < scan.items; item += block_rows(scan)) {
    const Piece piece = find_piece(scan, item);
    if (!piece.exists || piece.is_last()) continue;
    float total = 0.0f;
    for (int n = 0; n < scan.states; ++n) h[n * blockDim.x] = 0.0f;
    for (int t = piece.begin; t < piece.end; t += step_tokens) {
      const int64_t token = piece.first_token + t;
      Step step, delta_u;
      read_steps(scan, lane, token, step_tokens, step);  // only a sequence's last piece may have a partial step
      read_tokens(scan.u, lane, token, step_tokens, delta_u);
      __syncthreads();
      stage(scan, scan.B, token, step_tokens, B);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < step_tokens; ++k) {
        delta_u.at[k] *= step.at[k];
        total += step.at[k];
      }
      advance(scan, step, delta_u, rates, B, h);
    }
    write_column(scan, lane, h, item, scan.ends);
    if (lane.is_active) scan.totals[item * scan.channels + lane.channel] = total;
  }
}

// Replaces `ends`, what each piece adds to the state, by the state before the piece, from the initial state onwards;
// or, if `is_backward`, by the gradient of the state after the piece, from the last piece to the first. There is a
// thread for each sequence, state and channel.
template <class T, bool is_backward>
__global__ void __launch_bounds__(128) carry(const Scan<T> scan) {
  const int64_t size = scan.states * scan.channels, parts = (size + blockDim.x - 1) / blockDim.x;
  const int64_t i = blockIdx.x % parts * blockDim.x + threadIdx.x, sequence = blockIdx.x / parts;
  const int64_t begin = scan.offsets[sequence], length = scan.offsets[sequence + 1] - begin;
  const int64_t pieces = (length + (int64_t{1} << scan.shift) - 1) >> scan.shift;
  if (i >= size || pieces < 2) return;
  const int64_t n = i / scan.channels, channel = i % scan.channels, first = first_item(scan, sequence);
  const float* start = is_backward ? scan.grad_state : scan.initial_state;
  const float rate = scan.A[channel * scan.states + n] * log2_e;
  float h = start ? start[(sequence * scan.channels + channel) * scan.states + n] : 0.0f;
  for (int64_t j = 0; j < pieces; ++j) {
    const int64_t item = first + (is_backward ? pieces - 1 - j : j);
    float* at = scan.ends + item * size + i;
    const bool is_passed_on = j + 1 < pieces;
    const float added = is_passed_on ? *at : 0.0f;
    const float total = is_passed_on ? scan.totals[item * scan.channels + channel] : 0.0f;
    *at = h;
    h = h == 0.0f ? added : power_of_two(rate * total) * h + added;  // also where the power overflows
  }
}

// Computes y and, unless null, the final states and those kept for the backward pass.
template <class T>
__global__ void __launch_bounds__(128, 6) scan_forward(const Scan<T> scan) {
  UQ_SHARED(shared);
  const Lane lane(scan);
  float *rates = shared + threadIdx.x, *h = rates + scan.states * blockDim.x;
  Step* B = reinterpret_cast<Step*>(shared + 2 * scan.states * blockDim.x);
  Step* C = B + scan.states;
  read_rates(scan, lane, rates);
  const float skip = scan.D && lane.is_active ? scan.D[lane.channel] : 0.0f;
  for (int item = block_row(scan); item < scan.items; item += block_rows(scan)) {
    const Piece piece = find_piece(scan, item);
    if (!piece.exists) continue;
    if (piece.is_first()) {
      read_state(scan, lane, scan.initial_state, piece.sequence, h);
    } else {
      read_column(scan, lane, scan.ends, item, h);
    }
    for (int t = piece.begin; t < piece.end; t += step_tokens) {
      const int64_t token = piece.first_token + t;
      if (scan.kept && t > 0) write_column(scan, lane, h, kept_index(piece, t), scan.kept);
      const int count = tokens_of_step(piece, t);
      Step step, u, delta_u, y, z;
      read_steps(scan, lane, token, count, step);
      read_tokens(scan.u, lane, token, count, u);
      if (scan.z.data) read_tokens(scan.z, lane, token, count, z);
      __syncthreads();
      stage(scan, scan.B, token, count, B);
      stage(scan, scan.C, token, count, C);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < step_tokens; ++k) {
        delta_u.at[k] = step.at[k] * u.at[k];
        y.at[k] = skip * u.at[k];
      }
      advance(scan, step, delta_u, rates, B, C, h, y);
      if (scan.z.data) {
#pragma unroll
        for (int k = 0; k < step_tokens; ++k) y.at[k] *= z.at[k] * sigmoid(z.at[k]);
      }
      T* to = scan.y + token * scan.channels + lane.channel;
#pragma unroll
      for (int k = 0; k < step_tokens; ++k, to += scan.channels) {
        if (lane.is_active && k < count) store(to, y.at[k]);
      }
    }
    if (scan.state && piece.is_last()) write_state(scan, lane, h, piece.sequence, scan.state);
  }
}

}  // namespace uqabench::cuda
