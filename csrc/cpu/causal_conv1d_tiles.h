// The convolution of one block of tokens and channels, a few tokens at a time. Included after simd.h and functions.h,
// once for each instruction set.

namespace uqabench::UQ_ISA {
namespace {

constexpr int64_t block_tokens = 64, block_channels = 256;  // the size of a task
constexpr int tile = 4;         // tokens that are processed together and share the loads of the filter
constexpr int common_taps = 4;  // Mamba's number of taps, for which loops are unrolled

// The filter, transposed: row k is tap k of every channel, and row `taps` is the bias.
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

// The tokens [begin, end) of sequence `index`, which consists of tokens [start, stop).
struct Piece {
  int64_t index, start, stop, begin, end;
};

// One task: the tokens [begin, end) and the channels [channel, channel + width).
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

  // Calls body(piece) for the part of each sequence that lies in the block.
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

// The inputs of a sequence in the block's channels, preceded by its initial state.
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

// The inputs of the outputs [token, token + Rows): at(r, k) is multiplied by tap k for output r. Taps = 0: any number
// of taps, known at run time.
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

// The convolution in one block. The sizes are members, and each loop works on a copy of the object, because the
// compiler has to assume that a store to memory changes whatever is read through a reference.
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

  // Writes the gradients before the activation to `d_preactivation`, whose rows are `block_channels` long. If
  // AddsToFilter, adds those of the taps and of the bias to `sums`, whose rows are `channels` long.
  template <int Rows, bool AddsToFilter>
  void preactivation_gradient(const Inputs& inputs, const CausalConv1dResult& grad, int64_t token,
                              float* d_preactivation, float* sums) const {
    const Convolution at = *this;
    const Windows<Taps, Rows> windows(inputs, token);
    const int64_t stride = grad.out_stride;
    const float* from = grad.out + token * stride + at.channel;
    for_each_vector(at.width, [=](const auto& get, const auto& put) {
      Floats gradient[Rows];
      if (at.is_silu) {
        at.evaluate(windows, get, gradient);
        for (int r = 0; r < Rows; ++r) {
          const Floats share = sigmoid(gradient[r]);
          gradient[r] = share * multiply_add(gradient[r], 1.0f - share, broadcast(1.0f)) * get(from + r * stride);
        }
      } else {
        for (int r = 0; r < Rows; ++r) gradient[r] = get(from + r * stride);
      }
      for (int r = 0; r < Rows; ++r) put(d_preactivation + r * block_channels, gradient[r]);
      if constexpr (AddsToFilter) {
        for (int64_t k = 0; k < (Taps ? Taps : at.taps); ++k) {
          Floats sum = get(sums + k * at.channels);
          for (int r = 0; r < Rows; ++r) sum = multiply_add(gradient[r], get(windows.at(r, k)), sum);
          put(sums + k * at.channels, sum);
        }
        float* bias_sums = sums + (Taps ? Taps : at.taps) * at.channels;
        Floats sum = get(bias_sums);
        for (int r = 0; r < Rows; ++r) sum += gradient[r];
        put(bias_sums, sum);
      }
    });
  }

  // The gradients of `Rows` inputs. The first of them was multiplied by tap taps - 1 - `first` for the output of the
  // first row of `d_preactivation`.
  template <int Rows>
  void inputs_gradient(const float* d_preactivation, int64_t first, float* out, int64_t out_stride) const {
    const Convolution at = *this;
    for_each_vector(at.width, [=](const auto& get, const auto& put) {
      Floats sum[Rows] = {};
      for (int64_t j = first; j < (Taps ? Taps : at.taps); ++j) {
        const Floats weight = get(at.filter + ((Taps ? Taps : at.taps) - 1 - j) * at.filter_stride);
        for (int r = 0; r < Rows; ++r) {
          sum[r] = multiply_add(weight, get(d_preactivation + (r + j - first) * block_channels), sum[r]);
        }
      }
      for (int r = 0; r < Rows; ++r) put(out + r * out_stride, sum[r]);
    });
  }
};

// Calls body(token, rows) for tiles that cover [begin, end); `rows` is an integral constant.
template <class Body>
UQ_INLINE void for_each_tile(int64_t begin, int64_t end, const Body& body) {
  for (; begin + tile <= end; begin += tile) body(begin, std::integral_constant<int, tile>{});
  for (; begin < end; ++begin) body(begin, std::integral_constant<int, 1>{});
}

}  // namespace
}  // namespace uqabench::UQ_ISA
