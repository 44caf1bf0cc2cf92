// The selective scan's forward pass, and what goes from piece to piece in both passes.
//
// Tiling: a thread owns a channel and a warp 32 neighbouring ones, so rows of (tokens, channels) are read and written
// coalesced; a block of 128 channels goes through one piece of a sequence, step_tokens tokens at a time, whose inputs
// lie in registers and whose rows of B and C in shared memory, transposed, where all lanes read one address. For each
// state in turn the thread moves it over these tokens and adds to their y. States and rates lie in shared memory, a
// column a thread (17 KB a block at N = 16), touched once a step. Tokens follow one another within a thread: a prefix
// scan over lanes would need about half as many instructions again for a state and token. Parallelism comes from
// channels, sequences and pieces of long ones: scan_ends finds what each piece adds to its state, carry takes this from
// piece to piece, and the pass itself begins each piece where the one before ends.
//
// Bound on an H100 (132 multiprocessors, 1.755 GHz, 3.35 TB/s), for an element, i.e. a channel of a token, at N = 16:
// 16 exponentials and 4 more special functions (softplus, SiLU) take 20 / 16 = 1.25 clocks of a multiprocessor. All
// instructions, as nvcc 13.0 compiles them for sm_90, are 7.9 a state and 85 besides, 1.7 clocks. So at most 138e9
// elements a second, bound by instructions: in bfloat16, 8 bytes an element (12 with the states kept for a gradient),
// 1.1 TB/s (1.7), 33 % (50 %) of the memory's rate; in float32, 16 bytes (20), 2.2 TB/s (2.8), 66 % (82 %). Without the
// instructions besides, exponentials would bound bfloat16 at 44 % (66 %).
// At N = 32, the published state: 2.6 clocks (special functions: 2.25), 88e9 elements a second, in bfloat16, 8 bytes
// (16), 0.70 TB/s (1.4), 21 % (42 %), in float32, 16 bytes (24), 1.4 TB/s (2.1), 42 % (63 %); 34 KiB a block.
#pragma once

#include "cuda/selective_scan_steps.cuh"

namespace uqabench::cuda {

inline int64_t forward_shared(int64_t states, int threads) {
  return states * (2 * threads * sizeof(float) + 2 * sizeof(Step));
}

// To `ends` and `totals`: the state after each piece that has another behind it, as if it were zero before, and the sum
// of the piece's step sizes.
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
      read_steps(scan, lane, token, step_tokens, step);  // pieces with another behind them are whole
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

// Replaces what each piece adds to the state that goes through it (`ends`) by the state that enters it: forwards from
// the initial state or, if `is_backward`, from the last piece to the first, the gradient of the state. One thread a
// sequence, state and channel.
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

// y and, where asked for, the last states and those kept for the backward pass.
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
      if (scan.kept && t > 0 && t % kept_every == 0) {
        write_column(scan, lane, h, kept_index(piece, t), scan.kept);
      }
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
