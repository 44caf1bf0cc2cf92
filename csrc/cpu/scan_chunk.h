// What both passes of the selective scan need: the exponential, and a chunk of tokens prepared for a group of channels.
// Included after simd.h and functions.h, once for each instruction set.
//
// A lane is a channel. Channels are processed `vectors_at_once` vectors at a time, so that each broadcast element of B
// and C is used for two products.

#ifndef UQ_INLINED
#define UQ_INLINED __attribute__((always_inline))  // for lambdas
#endif

namespace uqabench::UQ_ISA {
namespace {

constexpr int vectors_at_once = 2;
constexpr int64_t channels_at_once = vectors_at_once * lanes;
static_assert(scan_channels % channels_at_once == 0);

// 2^x. If is_bounded, x must lie in [-126, 126] or be NaN; otherwise it is clamped to that range. The error is about
// 3e-7 |x| 2^x and two roundings, so that a decay near 1, a long memory, is exact to rounding. NaN gives NaN if its
// last nine bits are zero (see with_plain_nan).
template <bool is_bounded>
UQ_INLINE Floats power_of_two(Floats x) {
  if (!is_bounded) {
    x = x > 126.0f ? broadcast(126.0f) : x;
    x = x < -126.0f ? broadcast(-126.0f) : x;
  }
  // As in exponential(): adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits.
  const Floats shifted = x + 12582912.0f;
  const Floats r = x - (shifted - 12582912.0f);
  // Minimax for (2^r - 1) / r, |r| <= 1/2.
  Floats y = multiply_add(r, broadcast(0.0013400436f), broadcast(0.009666373f));
  y = multiply_add(y, r, broadcast(0.05550333f));
  y = multiply_add(y, r, broadcast(0.24022348f));
  y = multiply_add(y, r, broadcast(0.6931472f));
  y = multiply_add(y, r, broadcast(1.0f));
  return (Floats)((Ints)y + ((Ints)shifted << 23));
}

// Replaces every NaN by the one that power_of_two keeps.
UQ_INLINE Floats with_plain_nan(Floats x) { return x == x ? x : broadcast(__builtin_nanf("")); }

// The channels [first, first + count) of a group; `width` is their number rounded up to whole vectors.
struct ChannelGroup {
  int64_t index, first, count, width;

  ChannelGroup(const ScanInputs& in, int64_t g)
      : index(g),
        first(g * scan_channels),
        count(std::min(scan_channels, in.channels - first)),
        width((count + channels_at_once - 1) / channels_at_once * channels_at_once) {}
};

// delta plus its bias, before the softplus. `delta` points to a row at the group's first channel.
template <class Get>
UQ_INLINE Floats biased_delta(const ScanInputs& in, const ChannelGroup& group, const Get& get, const float* delta) {
  return in.delta_bias ? get(delta) + get(in.delta_bias + group.first) : get(delta);
}

// The inputs of a chunk's tokens for one group of channels. `step`, which is delta after bias and softplus, and
// `delta_u`, which is step * u, are (scan_chunk, scan_channels); b and c are (scan_chunk, padded states). Lanes
// without a channel hold zeros.
struct Chunk {
  float *step, *delta_u, *b, *c;
  int64_t first, tokens;
  bool is_bounded;  // whether every |step * rate| is at most 126

  static int64_t scratch(int64_t states) { return scan_chunk * 2 * (scan_channels + states); }

  Chunk(float* memory, int64_t states)
      : step(memory),
        delta_u(step + scan_chunk * scan_channels),
        b(delta_u + scan_chunk * scan_channels),
        c(b + scan_chunk * states) {
    std::memset(step, 0, 2 * scan_chunk * scan_channels * sizeof(float));
  }

  inline void read(const ScanInputs& in, const ChannelGroup& group, const ScanRates& rates, int64_t begin,
                   int64_t end) {
    first = begin;
    tokens = end - begin;
    Floats largest = {};
    for (int64_t t = 0; t < tokens; ++t) {  // row by row: rows a power of two apart share few sets of a cache
      const float *delta = in.delta.row(begin + t) + group.first, *u = in.u.row(begin + t) + group.first;
      for_each_vector(group.count, [&](auto get, auto put) UQ_INLINED {
        Floats x = biased_delta(in, group, get, delta);
        x = with_plain_nan(in.softplus ? softplus(x) : x);
        largest = larger(magnitude(x), largest);
        put(step + t * scan_channels, x);
        put(delta_u + t * scan_channels, x * get(u));
      });
    }
    float maximum = 0.0f;
    for (int i = 0; i < lanes; ++i) maximum = std::max(maximum, largest[i]);
    is_bounded = maximum * rates.largest[group.index] <= 126.0f;
    copy_rows(in.B, in.states, rates.states, b);
    copy_rows(in.C, in.states, rates.states, c);
  }

 private:
  inline void copy_rows(const FloatRows& rows, int64_t states, int64_t padded, float* to) const {
    for (int64_t t = 0; t < tokens; ++t, to += padded) {
      std::memcpy(to, rows.row(first + t), states * sizeof(float));
      for (int64_t n = states; n < padded; ++n) to[n] = 0.0f;
    }
  }
};

// Reads a group's part of a state (channels, states), or zeros if null, as (padded states, scan_channels).
inline void read_state(const float* state, int64_t states, const ChannelGroup& group, int64_t padded, float* h) {
  std::memset(h, 0, padded * scan_channels * sizeof(float));
  if (!state) return;
  for (int64_t i = 0; i < group.count; ++i) {
    for (int64_t n = 0; n < states; ++n) h[n * scan_channels + i] = state[(group.first + i) * states + n];
  }
}

// The inverse of read_state.
inline void write_state(const float* h, int64_t states, const ChannelGroup& group, float* state) {
  for (int64_t i = 0; i < group.count; ++i) {
    for (int64_t n = 0; n < states; ++n) state[(group.first + i) * states + n] = h[n * scan_channels + i];
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
