// The biases of HSTU attention. Included by hstu_attention.cpp alone, once for each instruction set.

namespace uqabench::UQ_ISA {
namespace {

// Elements before the first of a local position table, because a masked lane reads i - j down to 1 - panel.
constexpr int64_t margin = panel;
// Copies of the accumulators of the time table's gradient. Neighbouring queries mostly share a bucket, and each
// addition to one accumulator would wait for the one before.
constexpr int copies = 4;

// The biases of one sequence, by row of the transposed scores, and the tables' gradients.
class Bias {
 public:
  static int64_t scratch(const Shape& s) {
    return 2 * (s.rows + margin) + (copies + 1) * 256 + buckets_size(s) / 4 + 64;
  }

  Bias(const HstuAttention& args, const TimeBuckets& buckets, int64_t start, const Shape& shape, Arena& arena)
      : has_position_(args.position_bias), has_time_(args.time_bias), length_(shape.length), buckets_(args.buckets) {
    position_ = arena.take(shape.rows + margin) + margin;
    position_gradient_ = arena.take(shape.rows + margin) + margin;
    time_ = arena.take(256);
    time_gradient_ = arena.take(copies * 256);
    bucket_ = reinterpret_cast<uint8_t*>(arena.take(buckets_size(shape) / 4));
    if (has_position_) {
      for (int64_t r = -margin; r < shape.rows; ++r) {
        position_[r] = r >= 0 && r < length_ ? args.position_bias[args.max_len - 1 + r] : 0.0f;
      }
    }
    if (has_time_) {
      std::copy_n(args.time_bias, buckets_, time_);
      fill_buckets(buckets, args.timestamps + start);
    }
  }

  // Makes of() and accumulate() refer to the panel of queries that begins at `query`, a multiple of `panel`.
  void begin_panel(int64_t query) {
    query_ = query;
    panel_bucket_ = bucket_ + panel_begin(query);
  }

  // The biases of key j for the panel's lanes [first, first + lanes).
  UQ_INLINE Floats of(int64_t j, int first) const {
    Floats bias = {};
    if (has_position_) bias += load(position_ + query_ + first - j);
    if (has_time_) bias += gather(time_, panel_bucket_ + j * panel + first);
    return bias;
  }

  void clear_gradients() {
    if (has_position_) std::fill_n(position_gradient_ - margin, round_up(length_, panel) + margin, 0.0f);
    if (has_time_) std::fill_n(time_gradient_, copies * 256, 0.0f);
  }

  // Adds the gradients of key j's scores, which are zero where masked, to the tables' gradients.
  UQ_INLINE void accumulate(int64_t j, const float* gradient) {
    if (has_position_) {
      for (int first = 0; first < panel; first += lanes) {
        float* to = position_gradient_ + query_ + first - j;
        store(to, load(to) + load(gradient + first));
      }
    }
    if (has_time_) {
      const uint8_t* bucket = panel_bucket_ + j * panel;
      for (int i = 0; i < panel; ++i) time_gradient_[i % copies * 256 + bucket[i]] += gradient[i];
    }
  }

  void write_gradients(float* position, float* time) const {
    if (has_position_) std::copy_n(position_gradient_, length_, position);
    for (int64_t k = 0; has_time_ && k < buckets_; ++k) {
      time[k] = 0.0f;
      for (int c = 0; c < copies; ++c) time[k] += time_gradient_[c * 256 + k];
    }
  }

 private:
  // The index of the panel that begins at `query`: before it lie panels of `panel`, 2 * `panel`, ... keys.
  static int64_t panel_begin(int64_t query) { return query / panel * (query / panel + 1) / 2 * panel * panel; }
  static int64_t buckets_size(const Shape& s) { return panel_begin(s.rows); }

  void fill_buckets(const TimeBuckets& buckets, const int64_t* times) {
    for (int64_t query = 0; query < length_; query += panel) {
      uint8_t* to = bucket_ + panel_begin(query);
      for (int64_t j = 0; j < query + panel; ++j, to += panel) {
        const int64_t key_time = times[std::min(j, length_ - 1)];
        for (int i = 0; i < panel; ++i) to[i] = buckets.of(times[std::min(query + i, length_ - 1)], key_time);
      }
    }
  }

  bool has_position_, has_time_;
  int64_t length_, buckets_, query_ = 0;
  float *position_, *position_gradient_;  // indexed by i - j, from -margin
  float *time_, *time_gradient_;          // (256); (copies, 256)
  uint8_t* bucket_;                       // the bucket of each pair of a key and a query, by panel
  const uint8_t* panel_bucket_ = nullptr;
};

}  // namespace
}  // namespace uqabench::UQ_ISA
