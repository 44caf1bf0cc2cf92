// The selective scan's backward pass.
//
// Tiling: as in the forward pass a block goes through one piece of its channels, of which a thread owns one or two.
// Steps of 8 tokens go from a piece's last to its first, each from the state that the forward pass kept before it. For
// each state in turn its values and decays at the 8 tokens are in registers, the gradient is propagated back through
// them, and the gradients of B and C (16 values per thread) are summed over its channels and the warp's by recursive
// halving: 16 shuffles instead of 80, after which two lanes hold one sum. The block adds the sums of its warps and
// writes them as partial sums over channels, which sum_tokens adds in the order of the groups; sum_parameters does the
// same for A, D and delta_bias. docs/gpu.md says what bounds it.
#pragma once

#include "cuda/selective_scan_steps.cuh"

namespace uqabench::cuda {

constexpr int sums_of_state = 2 * step_tokens;  // a step's gradients for one state: those of B, then those of C

// `each`: channels a thread.
inline int64_t backward_shared(int64_t states, int threads, int each) {
  const int64_t columns = (4 * states + 2 + step_tokens) * each;
  const int64_t sums = threads / 32 * sums_of_state * states;
  return (columns * threads + sums) * sizeof(float) + 2 * states * sizeof(Step);
}

// Reads the gradient of y before its gate. Unless null, the column `gate_gradients` receives the factor that turns y
// into the gradient of z.
template <class T>
__device__ inline void read_gradients(const Scan<T>& scan, const Lane& lane, int64_t first, int count, Step& to,
                                      float* gate_gradients) {
  read_tokens(scan.grad, lane, first, count, to);
  if (!scan.z.data) return;
  Step z;
  read_tokens(scan.z, lane, first, count, z);
#pragma unroll
  for (int k = 0; k < step_tokens; ++k) {
    const float share = sigmoid(z.at[k]);
    if (gate_gradients) gate_gradients[k * blockDim.x] = to.at[k] * share * (1.0f + z.at[k] * (1.0f - share));
    to.at[k] *= z.at[k] * share;
  }
}

__device__ inline int last_step(const Piece& piece) {
  return piece.begin + (piece.end - piece.begin - 1) / step_tokens * step_tokens;
}

// The counterpart of scan_ends: the gradient of the state before each piece that is not its sequence's first, as if
// that of the state after the piece were zero.
template <class T>
__global__ void __launch_bounds__(128) scan_ends_backward(const Scan<T> scan) {
  UQ_SHARED(shared);
  const Lane lane(scan);
  float *rates = shared + threadIdx.x, *g = rates + scan.states * blockDim.x;
  Step* C = reinterpret_cast<Step*>(shared + 2 * scan.states * blockDim.x);
  read_rates(scan, lane, rates);
  for (int item = block_row(scan); item < scan.items; item += block_rows(scan)) {
    const Piece piece = find_piece(scan, item);
    if (!piece.exists || piece.is_first()) continue;
    float total = 0.0f;
    for (int n = 0; n < scan.states; ++n) g[n * blockDim.x] = 0.0f;
    for (int t = last_step(piece); t >= piece.begin; t -= step_tokens) {
      const int64_t token = piece.first_token + t;
      const int count = tokens_of_step(piece, t);
      Step step, grad;
      read_steps(scan, lane, token, count, step);
      read_gradients(scan, lane, token, count, grad, nullptr);
      __syncthreads();
      stage(scan, scan.C, token, count, C);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < step_tokens; ++k) total += step.at[k];
#pragma unroll 2
      for (int n = 0; n < scan.states; ++n) {
        const Step c = C[n];
        const float rate = rates[n * blockDim.x];
        float gradient = g[n * blockDim.x];
#pragma unroll
        for (int k = step_tokens - 1; k >= 0; --k) {
          gradient = (gradient + c.at[k] * grad.at[k]) * power_of_two(step.at[k] * rate);
        }
        g[n * blockDim.x] = gradient;
      }
    }
    write_column(scan, lane, g, item, scan.ends);
    if (lane.is_active) scan.totals[item * scan.channels + lane.channel] = total;
  }
}

// Sums each of 2 * half = 16 values over the warp by recursive halving: each half of the lanes keeps one half of the
// values. Leaves the sum of value l / 2 in x[0] of lane l.
template <int half, int apart = 16>
__device__ inline void sum_over_lanes(float* x) {
  const bool is_upper = threadIdx.x & apart;
#pragma unroll
  for (int i = 0; i < half; ++i) {
    const float kept = is_upper ? x[i + half] : x[i], given = is_upper ? x[i] : x[i + half];
    x[i] = kept + shuffle_xor(given, apart);
  }
  if constexpr (half > 1) {
    sum_over_lanes<half / 2, apart / 2>(x);
  } else {
    static_assert(apart == 2, "there must be 16 values");
    x[0] += shuffle_xor(x[0], 1);
  }
}

// The columns of one of a thread's channels and a block's arrays in shared memory.
struct BackwardMemory {
  float *rates, *h, *g;  // columns of (states, threads)
  float* parameters;     // a column of (states + 2, threads): the gradients of A, D and delta_bias
  float* gate_gradients;  // a column of (step_tokens, threads), see read_gradients
  Step *B, *C;
  float* sums;  // (warps, states, sums_of_state)

  BackwardMemory() = default;

  template <class T>
  __device__ BackwardMemory(const Scan<T>& scan, float* shared, int each, int which) {
    const int64_t size = scan.states * blockDim.x, columns = 4 * size + (2 + step_tokens) * blockDim.x;
    rates = shared + which * columns + threadIdx.x;
    h = rates + size;
    g = h + size;
    parameters = g + size;
    gate_gradients = parameters + size + 2 * blockDim.x;
    B = reinterpret_cast<Step*>(shared + each * columns);
    C = B + scan.states;
    sums = reinterpret_cast<float*>(C + scan.states);
  }
};

// Reads the state before the sequence's token t, at which a step begins, into memory.h.
template <class T>
__device__ inline void take_up_state(const Scan<T>& scan, const Lane& lane, const Piece& piece, int t,
                                     const BackwardMemory& memory) {
  if (t == 0) {
    read_state(scan, lane, scan.initial_state, piece.sequence, memory.h);
  } else {
    read_column(scan, lane, scan.kept, kept_index(piece, t), memory.h);
  }
}

// A thread's inputs of a step, and the accumulators that the states add to.
struct BackwardStep {
  Step step, u, grad;
  Step y, g_step, g_delta_u;  // g_step: the gradient of step through the decays, divided by ln 2
};

// Propagates the gradient of a channel's state n back through a step: memory.g then holds that at the step's start.
// Adds to `sums` the channel's part of the gradients of B and C.
__device__ inline void backpropagate(int n, const Step& b, const Step& c, const BackwardMemory& memory, BackwardStep& x,
                                     float* sums) {
  const int at = n * blockDim.x;
  const float rate = memory.rates[at];
  float before[step_tokens + 1], decay[step_tokens];
  before[0] = memory.h[at];
#pragma unroll
  for (int k = 0; k < step_tokens; ++k) {
    decay[k] = power_of_two(x.step.at[k] * rate);
    before[k + 1] = decay[k] * before[k] + x.step.at[k] * x.u.at[k] * b.at[k];
  }
  float g = memory.g[at], g_rate = memory.parameters[at];
#pragma unroll
  for (int k = step_tokens - 1; k >= 0; --k) {
    x.y.at[k] += c.at[k] * before[k + 1];
    g += c.at[k] * x.grad.at[k];
    sums[k] += x.step.at[k] * x.u.at[k] * g;
    sums[step_tokens + k] += before[k + 1] * x.grad.at[k];
    x.g_delta_u.at[k] += b.at[k] * g;
    g *= decay[k];  // now the gradient of the state before this token
    const float g_exponent = g * before[k];
    g_rate += x.step.at[k] * g_exponent;
    x.g_step.at[k] += rate * g_exponent;
  }
  memory.g[at] = g;
  memory.parameters[at] = g_rate;
}

// Writes the gradients of u, delta and z, and adds to those of D and delta_bias.
template <class T>
__device__ inline void write_gradients(const Scan<T>& scan, const Lane& lane, int64_t first, int count,
                                       const BackwardMemory& memory, const BackwardStep& x) {
  if (!lane.is_active) return;
  const float skip = scan.D ? scan.D[lane.channel] : 0.0f;
  float g_skip = 0.0f, g_bias = 0.0f;
  int64_t to = first * scan.channels + lane.channel;
#pragma unroll
  for (int k = 0; k < step_tokens; ++k, to += scan.channels) {
    if (k >= count) break;
    float g_delta = x.g_delta_u.at[k] * x.u.at[k] + x.g_step.at[k] * ln_2;
    if (scan.softplus) g_delta *= softplus_derivative(x.step.at[k]);
    store(scan.du + to, x.g_delta_u.at[k] * x.step.at[k] + skip * x.grad.at[k]);
    store(scan.ddelta + to, g_delta);
    g_skip += x.grad.at[k] * x.u.at[k];
    g_bias += g_delta;
    if (scan.z.data) store(scan.dz + to, memory.gate_gradients[k * blockDim.x] * (x.y.at[k] + skip * x.u.at[k]));
  }
  float* sums = memory.parameters + scan.states * blockDim.x;
  sums[0] += g_skip;
  sums[blockDim.x] += g_bias;
}

// Adds the warps' sums of a step and writes them as partial sums. To be called by all threads of a block.
template <class T>
__device__ inline void write_sums(const Scan<T>& scan, int64_t first, int count, const float* sums) {
  const int states = static_cast<int>(scan.states), warps = blockDim.x / 32;
  float* to = scan.token_partials + (blockIdx.x % scan.groups * scan.tokens + first) * 2 * states;
  for (int i = threadIdx.x; i < count * 2 * states; i += blockDim.x) {
    const int n = i % states, which = i / states % 2, k = i / (2 * states);
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += sums[(w * states + n) * sums_of_state + which * step_tokens + k];
    to[i] = sum;
  }
}

template <class T, int each>
__global__ void __launch_bounds__(128, each == 1 ? 3 : 2) scan_backward(const Scan<T> scan) {
  UQ_SHARED(shared);
  Lane lanes[each];
  BackwardMemory memories[each];
#pragma unroll
  for (int i = 0; i < each; ++i) {
    lanes[i] = Lane(scan, each, i);
    const BackwardMemory memory = memories[i] = BackwardMemory(scan, shared, each, i);
    read_rates(scan, lanes[i], memory.rates);
    for (int n = 0; n < scan.states + 2; ++n) memory.parameters[n * blockDim.x] = 0.0f;
  }
  const BackwardMemory& block = memories[0];
  for (int item = block_row(scan); item < scan.items; item += block_rows(scan)) {
    const Piece piece = find_piece(scan, item);
    if (!piece.exists) continue;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      if (piece.is_last()) {
        read_state(scan, lanes[i], scan.grad_state, piece.sequence, memories[i].g);
      } else {
        read_column(scan, lanes[i], scan.ends, item, memories[i].g);
      }
    }
    for (int t = last_step(piece); t >= piece.begin; t -= step_tokens) {
      const int64_t token = piece.first_token + t;
      const int count = tokens_of_step(piece, t);
      BackwardStep steps[each];
#pragma unroll
      for (int i = 0; i < each; ++i) {
        BackwardStep& x = steps[i];
        take_up_state(scan, lanes[i], piece, t, memories[i]);
        read_steps(scan, lanes[i], token, count, x.step);
        read_tokens(scan.u, lanes[i], token, count, x.u);
        read_gradients(scan, lanes[i], token, count, x.grad, memories[i].gate_gradients);
        x.y = x.g_step = x.g_delta_u = Step{};
      }
      __syncthreads();  // every thread has read the rows and sums of the previous step
      stage(scan, scan.B, token, count, block.B);
      stage(scan, scan.C, token, count, block.C);
      __syncthreads();
#pragma unroll 1
      for (int n = 0; n < scan.states; ++n) {
        const Step b = block.B[n], c = block.C[n];
        float sums[sums_of_state] = {};
#pragma unroll
        for (int i = 0; i < each; ++i) backpropagate(n, b, c, memories[i], steps[i], sums);
        sum_over_lanes<sums_of_state / 2>(sums);
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if (lane % 2 == 0) block.sums[(warp * scan.states + n) * sums_of_state + lane / 2] = sums[0];
      }
#pragma unroll
      for (int i = 0; i < each; ++i) write_gradients(scan, lanes[i], token, count, memories[i], steps[i]);
      __syncthreads();
      write_sums(scan, token, count, block.sums);
    }
    if (scan.dinitial_state && piece.is_first()) {
#pragma unroll
      for (int i = 0; i < each; ++i) write_state(scan, lanes[i], memories[i].g, piece.sequence, scan.dinitial_state);
    }
  }
#pragma unroll
  for (int i = 0; i < each; ++i) {
    if (!lanes[i].is_active) continue;
    float* to = scan.parameter_partials + block_row(scan) * (scan.states + 2) * scan.channels + lanes[i].channel;
    for (int n = 0; n < scan.states + 2; ++n) to[n * scan.channels] = memories[i].parameters[n * blockDim.x];
  }
}

}  // namespace uqabench::cuda
