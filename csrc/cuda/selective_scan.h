// The arguments of the CUDA selective scan, in plain C++ for its kernels, its binding and its test program.
#pragma once

#include <cstdint>

namespace uqabench::cuda {

// Row t begins at data + t * stride. Null data: the input is absent.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;
};

constexpr int kept_every = 8;  // the forward pass keeps a state every 8 tokens for the backward pass

// The operator's tensors in T or float, as uqabench.kernels.selective_scan describes them; null where absent. Offsets
// are monotone from 0 to `tokens`, and every sequence is shorter than 2^31. An item of work is a piece of one
// sequence: `1 << shift` tokens, or what is left at its end; shift < 31.
template <class T>
struct Scan {
  int64_t tokens, channels, states, sequences, shift, softplus, parameter_rows;
  int64_t items, groups;  // groups: of channels, one for each block of threads, see grouped_by
  Rows<T> u, delta, B, C, z, grad;
  const float *A, *D, *delta_bias, *initial_state, *grad_state;
  const int64_t* offsets;
  float* kept;    // (tokens / kept_every + 2, states, channels), see kept_index
  float* ends;    // (items, states, channels), and
  float* totals;  // (items, channels): what pieces pass on to one another, see carry
  T* y;
  float* state;
  // The backward pass alone. The partials are added in a fixed order: (channel groups, tokens, 2, states) for B and C,
  // (parameter_rows, states + 2, channels) for A, D and delta_bias.
  float *token_partials, *parameter_partials;
  T *du, *ddelta, *dB, *dC, *dz;
  float *dA, *dD, *ddelta_bias, *dinitial_state;
};

constexpr int64_t max_states = 256;  // more do not fit a block's shared memory

// The number of threads of a block: as many as have room for their channels' states.
constexpr int block_threads(int64_t states) { return states <= 64 ? 128 : states <= 128 ? 64 : 32; }

// The number of channels that a thread of scan_forward and scan_backward owns. Two share the loads of B and C and the
// sums over lanes. With more states the columns of two would leave a multiprocessor too few warps, and at an odd number
// of 128 channels a block's second ones would lie beyond the width.
constexpr int thread_channels(int64_t states, int64_t channels) {
  return states <= 16 && (channels + 127) / 128 % 2 == 0 ? 2 : 1;
}

// The sizes of a call in the order in which Python passes them (kernels/selective_scan/cuda.py); the addresses follow
// in the order of read_scan. clang-format off
enum Size { tokens_at, channels_at, states_at, sequences_at, shift_at, softplus_at, rows_at, bfloat16_at, u_stride_at,
            delta_stride_at, B_stride_at, C_stride_at, z_stride_at, grad_stride_at, sizes_in_all };
// clang-format on
constexpr int pointers_in_all = 28;

template <class T>
Scan<T> read_scan(const int64_t* sizes, void* const* pointers) {
  int next = 0;
  const auto floats = [&] { return static_cast<float*>(pointers[next++]); };
  const auto values = [&] { return static_cast<T*>(pointers[next++]); };
  const auto rows = [&](Size stride) { return Rows<T>{values(), sizes[stride]}; };
  Scan<T> scan{};
  scan.tokens = sizes[tokens_at];
  scan.channels = sizes[channels_at];
  scan.states = sizes[states_at];
  scan.sequences = sizes[sequences_at];
  scan.shift = sizes[shift_at];
  scan.softplus = sizes[softplus_at];
  scan.parameter_rows = sizes[rows_at];
  scan.items = (scan.tokens >> scan.shift) + scan.sequences;
  scan.groups = (scan.channels + block_threads(scan.states) - 1) / block_threads(scan.states);
  scan.u = rows(u_stride_at);
  scan.delta = rows(delta_stride_at);
  scan.B = rows(B_stride_at);
  scan.C = rows(C_stride_at);
  scan.z = rows(z_stride_at);
  scan.grad = rows(grad_stride_at);
  for (const float** to : {&scan.A, &scan.D, &scan.delta_bias, &scan.initial_state, &scan.grad_state}) *to = floats();
  scan.offsets = static_cast<const int64_t*>(pointers[next++]);
  scan.kept = floats();
  scan.ends = floats();
  scan.totals = floats();
  scan.y = values();
  scan.state = floats();
  scan.token_partials = floats();
  scan.parameter_partials = floats();
  for (T** to : {&scan.du, &scan.ddelta, &scan.dB, &scan.dC, &scan.dz}) *to = values();
  for (float** to : {&scan.dA, &scan.dD, &scan.ddelta_bias, &scan.dinitial_state}) *to = floats();
  static_cast<void>(next);
  return scan;
}

// Launch the kernels on `stream` of the device. Return the CUDA runtime's message, or null if there was no error.
const char* selective_scan_forward(const int64_t* sizes, void* const* pointers, int device, void* stream);
const char* selective_scan_backward(const int64_t* sizes, void* const* pointers, int device, void* stream);

}  // namespace uqabench::cuda
