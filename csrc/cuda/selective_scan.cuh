// The selective scan's forward pass, and the kernel that passes states on from piece to piece in both passes.
//
// Tiling: a warp owns 32 neighbouring channels, one a thread, so that rows of (tokens, channels) are accessed
// coalesced; in scan_forward it owns 32 more where there is room for their states (thread_channels), a block's threads
// further on. A block goes through one piece of a sequence, step_tokens tokens at a time. Their inputs are in
// registers, and their rows of B and C in shared memory, transposed, so that all lanes read one address. For each state
// in turn a thread advances it over these tokens and adds to their y. States and rates are in shared memory, a column
// for each channel, and are loaded and stored once a step. Tokens are processed sequentially within a thread, because a
// prefix scan over lanes would need about half as many instructions again. Parallelism comes from channels, sequences
// and the pieces of long sequences: scan_ends computes what each piece adds to its state, carry combines this from piece
// to piece, and scan_forward begins each piece with the state at the end of the one before. docs/gpu.md says what bounds
// it.
#pragma once

#include "cuda/selective_scan_steps.cuh"

namespace uqabench::cuda {

// `each`: channels a thread.
inline int64_t forward_shared(int64_t states, int threads, int each) {
  return states * (2 * threads * each * sizeof(float) + 2 * sizeof(Step));
}

// Writes to `ends` the state after each piece that is not its sequence's last, as if it were zero before the piece,
// and to `totals` the sum of the piece's step sizes.
template <class T>
__global__ void __launch_bounds__(128) scan_ends(const Scan<T> scan) {
  UQ_SHARED(shared);
  const Lane lane(scan);
  const int states = static_cast<int>(scan.states);
  float *rates = shared + threadIdx.x, *h = rates + states * blockDim.x;
  Step* B = reinterpret_cast<Step*>(shared + 2 * states * blockDim.x);
  read_rates(scan, lane, rates);
  for (int item = block_row(scan); item < scan.items; item += block_rows(scan)) {
    const Piece piece = find_piece(scan, item);
    if (!piece.exists || piece.is_last()) continue;
    float total = 0.0f;
    for (int n = 0; n < states; ++n) h[n * blockDim.x] = 0.0f;
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
#pragma unroll 2
      for (int n = 0; n < states; ++n) {
        const Step b = B[n];
        const float rate = rates[n * blockDim.x];
        float state = h[n * blockDim.x];
#pragma unroll
        for (int k = 0; k < step_tokens; ++k) {
          state = power_of_two(step.at[k] * rate) * state + delta_u.at[k] * b.at[k];
        }
        h[n * blockDim.x] = state;
      }
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

// The columns of one of a thread's channels and a block's rows of B and C in shared memory.
struct ForwardMemory {
  float *rates, *h;  // columns of (states, threads)
  Step *B, *C;

  ForwardMemory() = default;

  template <class T>
  __device__ ForwardMemory(const Scan<T>& scan, float* shared, int each, int which) {
    const int64_t size = scan.states * blockDim.x;
    rates = shared + 2 * which * size + threadIdx.x;
    h = rates + size;
    B = reinterpret_cast<Step*>(shared + 2 * each * size);
    C = B + scan.states;
  }
};

// A channel's inputs of a step, and y before its gate.
struct ForwardStep {
  Step step, delta_u, y;
};

// Advances the states of a thread's channels over a step whose rows of B and C are staged, and adds their products with
// C to y.
template <class T, int each>
__device__ inline void advance(const Scan<T>& scan, const ForwardMemory (&memories)[each], ForwardStep (&steps)[each]) {
  const int states = static_cast<int>(scan.states), size = states * blockDim.x;
  float* column = memories[0].rates;  // from which all the others lie at fixed distances, so that it is one address
#pragma unroll(2 / each)
  for (int n = 0; n < states; ++n, column += blockDim.x) {
    const Step b = memories[0].B[n], c = memories[0].C[n];
#pragma unroll
    for (int i = 0; i < each; ++i) {
      ForwardStep& x = steps[i];
      const float rate = column[2 * i * size];
      float h = column[(2 * i + 1) * size];
#pragma unroll
      for (int k = 0; k < step_tokens; ++k) {
        h = power_of_two(x.step.at[k] * rate) * h + x.delta_u.at[k] * b.at[k];
        x.y.at[k] += c.at[k] * h;
      }
      column[(2 * i + 1) * size] = h;
    }
  }
}

// Applies z's gate to y and writes it. The gate is read here, after the states have advanced, because until then its
// registers would leave a multiprocessor fewer warps.
template <class T>
__device__ inline void write_outputs(const Scan<T>& scan, const Lane& lane, int64_t first, int count, Step& y) {
  if (scan.z.data) {
    Step z;
    read_tokens(scan.z, lane, first, count, z);
#pragma unroll
    for (int k = 0; k < step_tokens; ++k) y.at[k] *= z.at[k] * sigmoid(z.at[k]);
  }
  T* to = scan.y + first * scan.channels + lane.channel;
#pragma unroll
  for (int k = 0; k < step_tokens; ++k, to += scan.channels) {
    if (lane.is_active && k < count) store(to, y.at[k]);
  }
}

// Computes y and, unless null, the final states and those kept for the backward pass.
template <class T, int each>
__global__ void __launch_bounds__(128, each == 1 ? 6 : 5) scan_forward(const Scan<T> scan) {
  UQ_SHARED(shared);
  Lane lanes[each];
  ForwardMemory memories[each];
  float skips[each];
#pragma unroll
  for (int i = 0; i < each; ++i) {
    lanes[i] = Lane(scan, each, i);
    memories[i] = ForwardMemory(scan, shared, each, i);
    read_rates(scan, lanes[i], memories[i].rates);
    skips[i] = scan.D && lanes[i].is_active ? scan.D[lanes[i].channel] : 0.0f;
  }
  for (int item = block_row(scan); item < scan.items; item += block_rows(scan)) {
    const Piece piece = find_piece(scan, item);
    if (!piece.exists) continue;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      if (piece.is_first()) {
        read_state(scan, lanes[i], scan.initial_state, piece.sequence, memories[i].h);
      } else {
        read_column(scan, lanes[i], scan.ends, item, memories[i].h);
      }
    }
    for (int t = piece.begin; t < piece.end; t += step_tokens) {
      const int64_t token = piece.first_token + t;
      const int count = tokens_of_step(piece, t);
      ForwardStep steps[each];
#pragma unroll
      for (int i = 0; i < each; ++i) {
        ForwardStep& x = steps[i];
        if (scan.kept && t > 0) write_column(scan, lanes[i], memories[i].h, kept_index(piece, t), scan.kept);
        read_steps(scan, lanes[i], token, count, x.step);
        read_tokens(scan.u, lanes[i], token, count, x.delta_u);
#pragma unroll
        for (int k = 0; k < step_tokens; ++k) {
          x.y.at[k] = skips[i] * x.delta_u.at[k];
          x.delta_u.at[k] *= x.step.at[k];
        }
      }
      __syncthreads();  // every thread has read the rows of the previous step
      stage(scan, scan.B, token, count, memories[0].B);
      stage(scan, scan.C, token, count, memories[0].C);
      __syncthreads();
      advance(scan, memories, steps);
#pragma unroll
      for (int i = 0; i < each; ++i) write_outputs(scan, lanes[i], token, count, steps[i].y);
    }
    if (scan.state && piece.is_last()) {
#pragma unroll
      for (int i = 0; i < each; ++i) write_state(scan, lanes[i], memories[i].h, piece.sequence, scan.state);
    }
  }
}

}  // namespace uqabench::cuda
