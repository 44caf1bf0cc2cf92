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
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

constexpr int64_t block_tokens = 64, block_channels = 256;  // of one task
constexpr int tile = 4;                                       // tokens worked on together: they share their taps' loads
constexpr int common_taps = 4;                                // Mamba's; compiled with its loops unrolled

// The filter's rows: row k is tap k of every channel, row `taps` the bias.
class Filter {
 public:
  explicit Filter(const CausalConv1d& in) : stride_(in.channels), rows_((in.taps + 1) * in.channels) {
    for (int64_t c = 0; c < in.channels; ++c) {
      for (int64_t k = 0; k < in.taps; ++k) rows_.get()[k * stride_ + c] = in.weight[c * in.weight_stride + k];
      rows_.get()[in.taps * stride_ + c] = in.bias ? in.bias[c] : 0.0f;
    }
  }
  const float* row(int64_t k, int64_t channel) const { return rows_.get() + k * stride_ + channel; }

 private:
  int64_t stride_;
  Scratch rows_;
};

// Tokens [begin, end) of sequence `index`, which is tokens [start, stop).
struct Piece {
  int64_t index, start, stop, begin, end;
};

// One task: a block of tokens by a block of channels [channel, channel + width).
struct Block {
  const CausalConv1d& in;
  int64_t row, begin, end, channel, width;

  static int64_t rows(const CausalConv1d& in) { return (in.tokens() + block_tokens - 1) / block_tokens; }
  static int64_t columns(const CausalConv1d& in) { return (in.channels + block_channels - 1) / block_channels; }

  Block(const CausalConv1d& inputs, int64_t task)
      : in(inputs),
        row(task / columns(in)),
        begin(row * block_tokens),
        end(std::min(in.tokens(), begin + block_tokens)),
        channel(task % columns(in) * block_channels),
        width(std::min(block_channels, in.channels - channel)) {}

  // body(piece) for what each sequence has in the block.
  template <class Body>
  void for_each_piece(const Body& body) const {
    int64_t b = std::upper_bound(in.offsets, in.offsets + in.sequences + 1, begin) - in.offsets - 1;
    for (; b < in.sequences && in.offsets[b] < end; ++b) {
      if (in.length(b) == 0) continue;
      const int64_t start = in.offsets[b], stop = in.offsets[b + 1];
      body(Piece{b, start, stop, std::max(begin, start), std::min(end, stop)});
    }
  }
};

// A sequence's inputs in the block's channels, with its state before them: what its windows see.
struct Inputs {
  const float* x;
  int64_t stride, start, before;
  const float* state;  // (before, block_channels)

  Inputs(const Block& block, const Piece& piece, float* scratch)
      : x(block.in.x + block.channel),
        stride(block.in.x_stride),
        start(piece.start),
        before(block.in.taps - 1),
        state(scratch) {
    if (piece.begin - start >= before) return;  // no window of the piece sees the state
    std::fill_n(scratch, before * block_channels, 0.0f);
    if (!block.in.initial_state) return;
    const float* from = block.in.initial_state + (piece.index * block.in.channels + block.channel) * before;
    for (int64_t c = 0; c < block.width; ++c) {
      for (int64_t i = 0; i < before; ++i) scratch[i * block_channels + c] = from[c * before + i];
    }
  }

  const float* row(int64_t token) const {
    return token >= start ? x + token * stride : state + (token - start + before) * block_channels;
  }
};

// The inputs that `Rows` tokens from `token` on see: at(r, k) meets tap k for token r. Taps = 0: any number.
template <int Taps, int Rows>
struct Windows {
  const float* rows[Taps - 1 + Rows];

  Windows(const Inputs& inputs, int64_t token) {
    for (int i = 0; i < Taps - 1 + Rows; ++i) rows[i] = inputs.row(token + i - (Taps - 1));
  }
  const float* at(int r, int64_t k) const { return rows[r + k]; }
};

template <int Rows>
struct Windows<0, Rows> {
  const Inputs& inputs;
  int64_t first;

  Windows(const Inputs& from, int64_t token) : inputs(from), first(token - from.before) {}
  const float* at(int r, int64_t k) const { return inputs.row(first + r + k); }
};

// The convolution in one block. Its sizes are held here, and copied once more before each loop, because the compiler
// must take any store of floats for one that may change what it reads through a reference.
template <int Taps>
struct Convolution {
  int64_t taps, channels, channel, width, filter_stride;
  const float* filter;
  bool is_silu;

  Convolution(const Block& block, const Filter& from)
      : taps(Taps ? Taps : block.in.taps),
        channels(block.in.channels),
        channel(block.channel),
        width(block.width),
        filter_stride(from.row(1, 0) - from.row(0, 0)),
        filter(from.row(0, channel)),
        is_silu(block.in.is_silu) {}

  template <int Rows, class Get>
  UQ_INLINE void evaluate(const Windows<Taps, Rows>& windows, const Get& get, Floats (&y)[Rows]) const {
    for (int r = 0; r < Rows; ++r) y[r] = get(filter + (Taps ? Taps : taps) * filter_stride);
    for (int64_t k = 0; k < (Taps ? Taps : taps); ++k) {
      const Floats weight = get(filter + k * filter_stride);
      for (int r = 0; r < Rows; ++r) y[r] = multiply_add(weight, get(windows.at(r, k)), y[r]);
    }
  }

  template <int Rows>
  void forward(const Inputs& inputs, int64_t token, float* out) const {
    const Convolution at = *this;
    const Windows<Taps, Rows> windows(inputs, token);
    float* to = out + token * at.channels + at.channel;
    for_each_vector(at.width, [=](const auto& get, const auto& put) {
      Floats y[Rows];
      at.evaluate(windows, get, y);
      if (at.is_silu) {
        for (int r = 0; r < Rows; ++r) y[r] = y[r] / (1.0f + exponential(-y[r]));
      }
      for (int r = 0; r < Rows; ++r) put(to + r * at.channels, y[r]);
    });
  }

  // Gradients before the activation, to `slopes`, whose rows are `block_channels` long; adds the taps' and the bias's
  // to `sums`, whose rows are `channels` long, if IsCounted.
  template <int Rows, bool IsCounted>
  void slopes(const Inputs& inputs, const CausalConv1dResult& grad, int64_t token, float* slopes, float* sums) const {
    const Convolution at = *this;
    const Windows<Taps, Rows> windows(inputs, token);
    const int64_t stride = grad.out_stride;
    const float* from = grad.out + token * stride + at.channel;
    for_each_vector(at.width, [=](const auto& get, const auto& put) {
      Floats slope[Rows];
      if (at.is_silu) {
        at.evaluate(windows, get, slope);
        for (int r = 0; r < Rows; ++r) {
          const Floats share = sigmoid(slope[r]);
          slope[r] = share * multiply_add(slope[r], 1.0f - share, broadcast(1.0f)) * get(from + r * stride);
        }
      } else {
        for (int r = 0; r < Rows; ++r) slope[r] = get(from + r * stride);
      }
      for (int r = 0; r < Rows; ++r) put(slopes + r * block_channels, slope[r]);
      if constexpr (IsCounted) {
        for (int64_t k = 0; k < (Taps ? Taps : at.taps); ++k) {
          Floats sum = get(sums + k * at.channels);
          for (int r = 0; r < Rows; ++r) sum = multiply_add(slope[r], get(windows.at(r, k)), sum);
          put(sums + k * at.channels, sum);
        }
        float* bias_sums = sums + (Taps ? Taps : at.taps) * at.channels;
        Floats sum = get(bias_sums);
        for (int r = 0; r < Rows; ++r) sum += slope[r];
        put(bias_sums, sum);
      }
    });
  }

  // The input gradients of `Rows` tokens, the first of which meets tap taps - 1 - `first` in the first row of `slopes`.
  template <int Rows>
  void inputs_gradient(const float* slopes, int64_t first, float* out, int64_t out_stride) const {
    const Convolution at = *this;
    for_each_vector(at.width, [=](const auto& get, const auto& put) {
      Floats sum[Rows] = {};
      for (int64_t j = first; j < (Taps ? Taps : at.taps); ++j) {
        const Floats weight = get(at.filter + ((Taps ? Taps : at.taps) - 1 - j) * at.filter_stride);
        for (int r = 0; r < Rows; ++r) {
          sum[r] = multiply_add(weight, get(slopes + (r + j - first) * block_channels), sum[r]);
        }
      }
      for (int r = 0; r < Rows; ++r) put(out + r * out_stride, sum[r]);
    });
  }
};

// body(token, rows) for [begin, end) in tiles; `rows` is an integral constant.
template <class Body>
UQ_INLINE void for_each_tile(int64_t begin, int64_t end, const Body& body) {
  for (; begin + tile <= end; begin += tile) body(begin, std::integral_constant<int, tile>{});
  for (; begin < end; ++begin) body(begin, std::integral_constant<int, 1>{});
}

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

// The last taps - 1 inputs of sequence b.
inline void write_state(const CausalConv1d& in, int64_t b, float* state) {
  const int64_t before = in.taps - 1, length = in.length(b);
  float* to = state + b * in.channels * before;
  const float* old = in.initial_state ? in.initial_state + b * in.channels * before : nullptr;
  for (int64_t i = 0; i < before; ++i) {
    const int64_t token = length - before + i;  // within the sequence
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

// The gradient of the state after a sequence belongs to the last inputs: those of the piece's tokens.
inline void add_state_gradient(const Block& block, const Piece& piece, const float* grad_state, float* dx) {
  const int64_t before = block.in.taps - 1, channels = block.in.channels;
  const float* from = grad_state + (piece.index * channels + block.channel) * before;
  for (int64_t token = std::max(piece.begin, piece.stop - before); token < piece.end; ++token) {
    float* to = dx + token * channels + block.channel;
    const int64_t place = token - (piece.stop - before);
    for (int64_t c = 0; c < block.width; ++c) to[c] += from[c * before + place];
  }
}

// rows (taps - 1, block_channels): the gradient of a sequence's initial state through its outputs, if it has any.
// What the sequence left of that state is also in its last state.
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

// All gradients of the block's tokens; `sums` (taps + 1, in.channels) receives its part of the filter's.
template <int Taps>
void backward_block(const Block& block, const Filter& filter, const CausalConv1dResult& grad,
                    const CausalConv1dGradients& gradients, float* sums, float* scratch) {
  const Convolution<Taps> convolution(block, filter);
  const int64_t before = block.in.taps - 1, channels = block.in.channels;
  float* state = scratch;  // (before, block_channels), then the same of the initial state's gradient
  float* slopes = scratch + before * block_channels;
  for (int64_t k = 0; k <= block.in.taps; ++k) std::fill_n(sums + k * channels + block.channel, block.width, 0.0f);
  block.for_each_piece([&](const Piece& piece) {
    const Inputs inputs(block, piece, state);
    const auto slope_row = [&](int64_t token) { return slopes + (token - piece.begin) * block_channels; };
    for_each_tile(piece.begin, piece.end, [&](int64_t token, auto rows) {
      convolution.template slopes<rows(), true>(inputs, grad, token, slope_row(token), sums + block.channel);
    });
    // Outputs after the piece that saw its tokens; after the sequence there are none.
    const int64_t seen = std::min(piece.end + before, piece.stop);
    for_each_tile(piece.end, seen, [&](int64_t token, auto rows) {
      convolution.template slopes<rows(), false>(inputs, grad, token, slope_row(token), nullptr);
    });
    std::fill(slope_row(seen), slope_row(piece.end + before), 0.0f);

    for_each_tile(piece.begin, piece.end, [&](int64_t token, auto rows) {
      convolution.template inputs_gradient<rows()>(slope_row(token), 0, gradients.x + token * channels + block.channel,
                                                   channels);
    });
    if (grad.state) add_state_gradient(block, piece, grad.state, gradients.x);
    if (!gradients.initial_state || piece.begin > piece.start) return;
    for (int64_t i = 0; i < before; ++i) {
      convolution.template inputs_gradient<1>(slopes, before - i, state + i * block_channels, 0);
    }
    write_initial_gradient(block, piece.index, state, grad.state, gradients.initial_state);
  });
}

// Adds up the parts (rows, taps + 1, in.channels) of the block's channels in their order.
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
