// Scores and biases of HSTU attention. Included by its kernels, once for each instruction set.

namespace uqabench::UQ_ISA {
namespace {

UQ_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// Writes the weights of a lane's scores x, zero where masked.
UQ_INLINE void write_weights(Floats x, Ints mask, float* weight) { store(weight, keep(mask, x * sigmoid(x))); }

// The same, and turns the gradients of the weights into those of the scores, times `share`.
UQ_INLINE void write_weights(Floats x, Ints mask, float share, float* weight, float* gradient) {
  const Floats gate = sigmoid(x);
  store(weight, keep(mask, x * gate));
  store(gradient, keep(mask, load(gradient) * (gate + x * gate * (1.0f - gate)) * share));
}

// Writes the bucket of each pair of a key [first, last) and one of the panel's queries from `query` on.
inline void fill_buckets(const TimeBuckets& buckets, const int64_t* times, int64_t length, int64_t query, int64_t first,
                         int64_t last, uint8_t* to) {
  for (int64_t j = first; j < last; ++j, to += panel) {
    const int64_t key_time = times[std::min(j, length - 1)];
    for (int i = 0; i < panel; ++i) to[i] = buckets.of(times[std::min(query + i, length - 1)], key_time);
  }
}

// The position and time tables of one sequence, and their gradients. Positions go by i - j. The accumulators of the
// time table's gradient have `Copies`: neighbouring queries mostly share a bucket, and each addition to one accumulator
// would wait for the one before.
template <int Copies>
class HstuTables {
 public:
  // Positions from -before to after, of which those from -(sides - 1) * length to length are in the table.
  struct Range {
    int64_t before, after, length;
    int sides;

    int64_t size() const { return before + after; }
    int64_t first() const { return (1 - sides) * length; }
  };

  static int64_t scratch(int64_t size) { return 2 * size + (Copies + 1) * 256; }

  HstuTables(const HstuAttention& args, const Range& range, Arena& arena)
      : has_position_(args.position_bias), has_time_(args.time_bias), buckets_(args.buckets), range_(range) {
    position_ = arena.take(range.size()) + range.before;
    position_gradient_ = arena.take(range.size()) + range.before;
    time_ = arena.take(256);
    time_gradient_ = arena.take(Copies * 256);
    if (has_position_) {
      const int64_t lowest = range.sides == 1 ? 0 : 1 - range.length;
      for (int64_t r = -range.before; r < range.after; ++r) {
        position_[r] = r >= lowest && r < range.length ? args.position_bias[args.max_len - 1 + r] : 0.0f;
      }
    }
    if (has_time_) std::copy_n(args.time_bias, buckets_, time_);
  }

  // The biases of some lanes: the first one's i - j, and their pairs' buckets.
  UQ_INLINE Floats of(int64_t position, const uint8_t* bucket) const {
    Floats bias = {};
    if (has_position_) bias += load(position_ + position);
    if (has_time_) bias += gather(time_, bucket);
    return bias;
  }

  void clear_gradients() {
    if (has_position_) std::fill_n(position_gradient_ - range_.before, range_.size(), 0.0f);
    if (has_time_) std::fill_n(time_gradient_, Copies * 256, 0.0f);
  }

  // Adds the gradients of the panel's scores of one key, which are zero where masked.
  UQ_INLINE void accumulate(int64_t position, const uint8_t* bucket, const float* gradient) {
    if (has_position_) {
      for (int first = 0; first < panel; first += lanes) {
        float* to = position_gradient_ + position + first;
        store(to, load(to) + load(gradient + first));
      }
    }
    if (has_time_) {
      for (int i = 0; i < panel; ++i) time_gradient_[i % Copies * 256 + bucket[i]] += gradient[i];
    }
  }

  void write_gradients(float* position, float* time) const {
    if (has_position_) std::copy_n(position_gradient_ + range_.first(), range_.sides * range_.length, position);
    for (int64_t k = 0; has_time_ && k < buckets_; ++k) {
      time[k] = 0.0f;
      for (int c = 0; c < Copies; ++c) time[k] += time_gradient_[c * 256 + k];
    }
  }

 private:
  bool has_position_, has_time_;
  int64_t buckets_;
  Range range_;
  float *position_, *position_gradient_, *time_, *time_gradient_;
};

}  // namespace
}  // namespace uqabench::UQ_ISA
