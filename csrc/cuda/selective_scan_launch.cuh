// The order in which the selective scan's kernels are launched, and the sums at the end of its backward pass.
#pragma once

#include "cuda/selective_scan.cuh"
#include "cuda/selective_scan_backward.cuh"

namespace uqabench::cuda {

// Sums the partial gradients of B and C over the groups of channels, in their order, with a thread for each element.
template <class T>
__global__ void __launch_bounds__(128) sum_tokens(const Scan<T> scan) {
  const int64_t size = scan.tokens * 2 * scan.states, i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float sum = 0.0f;
  for (int64_t group = 0; group < scan.groups; ++group) sum += scan.token_partials[group * size + i];
  const int64_t row = i / (2 * scan.states), n = i % scan.states;
  store((i / scan.states % 2 ? scan.dC : scan.dB) + row * scan.states + n, sum);
}

constexpr int row_shares = 8;  // rows of a block, each of which adds its share of the partial sums

// Sums the blocks' partial gradients of A, D and delta_bias in a fixed order. A block takes 32 channels of one of the
// states + 2 parameters: row r of its threads adds every eighth partial sum from r on, and its first row adds the
// results.
template <class T>
__global__ void __launch_bounds__(32 * row_shares) sum_parameters(const Scan<T> scan) {
  UQ_SHARED(shares);
  const int64_t parts = (scan.channels + 31) / 32, n = blockIdx.x / parts;
  const int lane = threadIdx.x % 32, share = threadIdx.x / 32;
  const int64_t channel = blockIdx.x % parts * 32 + lane, stride = (scan.states + 2) * scan.channels;
  const float* from = scan.parameter_partials + n * scan.channels + channel;
  float sum = 0.0f;
  if (channel < scan.channels) {
#pragma unroll 4
    for (int64_t row = share; row < scan.parameter_rows; row += row_shares) sum += from[row * stride];
  }
  shares[threadIdx.x] = sum;
  __syncthreads();
  if (share != 0 || channel >= scan.channels) return;
  for (int other = 1; other < row_shares; ++other) sum += shares[other * 32 + lane];
  if (n < scan.states) {
    scan.dA[channel * scan.states + n] = sum;
  } else if (float* to = n == scan.states ? scan.dD : scan.ddelta_bias) {
    to[channel] = sum;
  }
}

// The scan with its groups counted for blocks whose threads own `each` channels.
template <class T>
Scan<T> grouped_by(Scan<T> scan, int each) {
  const int64_t owned = int64_t{block_threads(scan.states)} * each;
  scan.groups = (scan.channels + owned - 1) / owned;
  return scan;
}

// `launch(kernel, blocks, threads, bytes of shared memory, scan)` launches a kernel on the stream unless it has no
// blocks.
template <class T, class Launch>
void launch_forward(const Scan<T>& scan, Launch launch) {
  const int threads = block_threads(scan.states);
  if (scan.tokens >> scan.shift) {
    launch(scan_ends<T>, scan.items * scan.groups, threads, ends_shared(scan.states, threads), scan);
    launch(carry<T, false>, (scan.states * scan.channels + 127) / 128 * scan.sequences, 128, 0, scan);
  }
  const int each = thread_channels(scan.states, scan.channels);
  const Scan<T> grouped = grouped_by(scan, each);
  const auto forward = each == 1 ? scan_forward<T, 1> : scan_forward<T, 2>;
  launch(forward, scan.items * grouped.groups, threads, forward_shared(scan.states, threads, each), grouped);
}

template <class T, class Launch>
void launch_backward(const Scan<T>& scan, Launch launch) {
  const int threads = block_threads(scan.states);
  if (scan.tokens >> scan.shift) {
    launch(scan_ends_backward<T>, scan.items * scan.groups, threads, ends_shared(scan.states, threads), scan);
    launch(carry<T, true>, (scan.states * scan.channels + 127) / 128 * scan.sequences, 128, 0, scan);
  }
  const int each = thread_channels(scan.states, scan.channels);
  const Scan<T> grouped = grouped_by(scan, each);
  const auto backward = each == 1 ? scan_backward<T, 1> : scan_backward<T, 2>;
  launch(backward, scan.parameter_rows * grouped.groups, threads, backward_shared(scan.states, threads, each), grouped);
  launch(sum_tokens<T>, (scan.tokens * 2 * scan.states + 127) / 128, 128, 0, grouped);
  launch(sum_parameters<T>, (scan.channels + 31) / 32 * (scan.states + 2), 32 * row_shares,
         32 * row_shares * static_cast<int64_t>(sizeof(float)), scan);
}

}  // namespace uqabench::cuda
