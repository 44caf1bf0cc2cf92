#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/causal_conv1d.h"

#include <algorithm>
#include <type_traits>

#include "cpu/memory.h"
#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/causal_conv1d.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void causal_conv1d_forward(const CausalConv1d& in, float* out, float* state) {
  static constexpr decltype(&baseline::forward) kernel[] = UQ_TABLE(forward);
  expect_writes(out, in.tokens() * in.channels);
  kernel[static_cast<int>(current_isa())](in, out, state);
}

void causal_conv1d_backward(const CausalConv1d& in, const CausalConv1dResult& grad,
                            const CausalConv1dGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernel[] = UQ_TABLE(backward);
  expect_writes(gradients.x, in.tokens() * in.channels);
  kernel[static_cast<int>(current_isa())](in, grad, gradients);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
#include "cpu/causal_conv1d_tiles.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

template <int Taps>
void forward_block(const Block& block, const Filter& filter, float* out, float* scratch) {
  const Convolution<Taps> convolution(block, filter);
  block.for_each_piece([&](const Piece& piece) {
    const Inputs inputs(block, piece, scratch);
    for_each_tile(piece.begin, piece.end, [&](int64_t token, auto rows) {
      convolution.template forward<rows()>(inputs, token, out);
    });
  });
}

// Writes the state after sequence b, its last taps - 1 inputs.
inline void write_state(const CausalConv1d& in, int64_t b, float* state) {
  const int64_t before = in.taps - 1, length = in.length(b);
  float* to = state + b * in.channels * before;
  const float* old = in.initial_state ? in.initial_state + b * in.channels * before : nullptr;
  for (int64_t i = 0; i < before; ++i) {
    const int64_t token = length - before + i;  // index in the sequence; negative: an input of the initial state
    const float* x = in.x + (in.offsets[b] + token) * in.x_stride;
    if (token >= 0) {
      for (int64_t c = 0; c < in.channels; ++c) to[c * before + i] = x[c];
    } else {
      for (int64_t c = 0; c < in.channels; ++c) to[c * before + i] = old ? old[c * before + i + length] : 0.0f;
    }
  }
}

inline void forward(const CausalConv1d& in, float* out, float* state) {
  const Filter filter(in);
  const auto kernel = in.taps == common_taps ? &forward_block<common_taps> : &forward_block<0>;
  parallel_for(Block::rows(in) * Block::columns(in), in.threads, (in.taps - 1) * block_channels,
               [&](int64_t task, float* scratch) { kernel(Block(in, task), filter, out, scratch); });
  if (!state) return;
  parallel_for(in.sequences, in.threads, 0, [&](int64_t b, float*) { write_state(in, b, state); });
}

// Adds the gradient of the state after a sequence to those of the last inputs, as far as they are the piece's tokens.
inline void add_state_gradient(const Block& block, const Piece& piece, const float* grad_state, float* dx) {
  const int64_t before = block.in.taps - 1, channels = block.in.channels;
  const float* from = grad_state + (piece.index * channels + block.channel) * before;
  for (int64_t token = std::max(piece.begin, piece.stop - before); token < piece.end; ++token) {
    float* to = dx + token * channels + block.channel;
    const int64_t index = token - (piece.stop - before);
    for (int64_t c = 0; c < block.width; ++c) to[c] += from[c * before + index];
  }
}

// Writes the gradient of a sequence's initial state: `rows` (taps - 1, block_channels), its gradient through the
// outputs, or null where the sequence is empty, plus the gradient of what the state after the sequence still contains
// of it.
inline void write_initial_gradient(const Block& block, int64_t b, const float* rows, const float* grad_state,
                                   float* gradient) {
  const int64_t before = block.in.taps - 1, length = block.in.length(b);
  const int64_t first = (b * block.in.channels + block.channel) * before;
  for (int64_t c = 0; c < block.width; ++c) {
    for (int64_t i = 0; i < before; ++i) {
      const int64_t at = first + c * before + i;
      const float later = grad_state && i >= length ? grad_state[at - length] : 0.0f;
      gradient[at] = (rows ? rows[i * block_channels + c] : 0.0f) + later;
    }
  }
}

inline int64_t backward_scratch(const CausalConv1d& in) {
  return (block_tokens + 2 * (in.taps - 1)) * block_channels;
}

// Computes the gradients of the block's inputs, and its part of the filter's, which goes to `sums` (taps + 1,
// in.channels).
template <int Taps>
void backward_block(const Block& block, const Filter& filter, const CausalConv1dResult& grad,
                    const CausalConv1dGradients& gradients, float* sums, float* scratch) {
  const Convolution<Taps> convolution(block, filter);
  const int64_t before = block.in.taps - 1, channels = block.in.channels;
  float* state = scratch;  // (before, block_channels): the initial state, later its gradient
  float* d_preactivation = scratch + before * block_channels;
  for (int64_t k = 0; k <= block.in.taps; ++k) std::fill_n(sums + k * channels + block.channel, block.width, 0.0f);
  block.for_each_piece([&](const Piece& piece) {
    const Inputs inputs(block, piece, state);
    const auto gradient_row = [&](int64_t token) { return d_preactivation + (token - piece.begin) * block_channels; };
    for_each_tile(piece.begin, piece.end, [&](int64_t token, auto rows) {
      convolution.template preactivation_gradient<rows(), true>(inputs, grad, token, gradient_row(token),
                                                                sums + block.channel);
    });
    // The outputs after the piece that depend on its tokens, which end with the sequence.
    const int64_t seen = std::min(piece.end + before, piece.stop);
    for_each_tile(piece.end, seen, [&](int64_t token, auto rows) {
      convolution.template preactivation_gradient<rows(), false>(inputs, grad, token, gradient_row(token), nullptr);
    });
    std::fill(gradient_row(seen), gradient_row(piece.end + before), 0.0f);

    for_each_tile(piece.begin, piece.end, [&](int64_t token, auto rows) {
      convolution.template inputs_gradient<rows()>(gradient_row(token), 0,
                                                   gradients.x + token * channels + block.channel, channels);
    });
    if (grad.state) add_state_gradient(block, piece, grad.state, gradients.x);
    if (!gradients.initial_state || piece.begin > piece.start) return;
    for (int64_t i = 0; i < before; ++i) {
      convolution.template inputs_gradient<1>(d_preactivation, before - i, state + i * block_channels, 0);
    }
    write_initial_gradient(block, piece.index, state, grad.state, gradients.initial_state);
  });
}

// Sums the filter's partial gradients (rows, taps + 1, in.channels) of the block's channels in the order of the rows.
inline void write_filter_gradients(const Block& block, const float* parts, const CausalConv1dGradients& gradients) {
  const int64_t taps = block.in.taps, channels = block.in.channels, rows = Block::rows(block.in);
  for (int64_t k = 0; k <= taps; ++k) {
    float sums[block_channels] = {};
    for (int64_t row = 0; row < rows; ++row) {
      const float* part = parts + (row * (taps + 1) + k) * channels + block.channel;
      for (int64_t c = 0; c < block.width; ++c) sums[c] += part[c];
    }
    float* to = k < taps ? gradients.weight + block.channel * taps + k : gradients.bias + block.channel;
    const int64_t stride = k < taps ? taps : 1;
    for (int64_t c = 0; c < block.width; ++c) to[c * stride] = sums[c];
  }
}

inline void backward(const CausalConv1d& in, const CausalConv1dResult& grad, const CausalConv1dGradients& gradients) {
  const Filter filter(in);
  const auto kernel = in.taps == common_taps ? &backward_block<common_taps> : &backward_block<0>;
  const int64_t rows = Block::rows(in), columns = Block::columns(in), part = (in.taps + 1) * in.channels;
  const Scratch parts(rows * part);
  parallel_for(rows * columns, in.threads, backward_scratch(in), [&](int64_t task, float* scratch) {
    const Block block(in, task);
    kernel(block, filter, grad, gradients, parts.get() + block.row * part, scratch);
  });
  parallel_for(columns, in.threads, 0,
               [&](int64_t column, float*) { write_filter_gradients(Block(in, column), parts.get(), gradients); });
  if (!gradients.initial_state) return;
  for (int64_t b = 0; b < in.sequences; ++b) {
    if (in.length(b) > 0) continue;  // its first block has written it
    for (int64_t column = 0; column < columns; ++column) {
      write_initial_gradient(Block(in, column), b, nullptr, grad.state, gradients.initial_state);
    }
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
