#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/linear_cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "cpu/memory.h"
#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/linear_cross_entropy.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void linear_cross_entropy(const LinearCrossEntropy& args) {
  static constexpr decltype(&baseline::cross_entropy) kernel[] = UQ_TABLE(cross_entropy);
  kernel[static_cast<int>(current_isa())](args);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
#include "cpu/gemm.h"
#include "cpu/catalogue.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// Tokens are processed a batch at a time. A first pass over the catalogue computes every logit and keeps its
// exponential, relative to the largest logit in its stretch of items. A second pass turns the exponentials into
// probabilities, with one factor for each stretch and token, and into gradients. So logits and exponentials are
// computed once, and one float is kept for each candidate and token.
constexpr int rows = UQ_LANES == 16 ? 12 : 6;  // items of a register block
static_assert(tile % rows == 0);

constexpr float lowest = -3e38f;  // the logit of a candidate left out; finite, as infinity less infinity is NaN

// The number of tokens of a batch, a multiple of `panel`: enough for efficient products, and more where their
// exponentials still fit the L3 cache. All memory allocated stays below 256 MB for up to 4 million items.
inline int64_t batch_tokens(const LinearCrossEntropy& args) {
  const int64_t row = args.items * sizeof(float), cached = (8 << 20) / row;
  const int64_t max_tokens = (256'000'000 - 1'400'000) / row;
  const int64_t wanted = args.has_gradient() ? std::min(std::max<int64_t>(cached, 128), max_tokens) : 64;
  return std::min(round_up(args.tokens, panel), std::max<int64_t>(wanted / panel, 1) * panel);
}

// A batch of tokens, and what the passes over the catalogue compute for them.
class Batch {
 public:
  Batch(const LinearCrossEntropy& args, const Catalogue& items, const ItemsById& ids, int64_t tokens)
      : args(args),
        catalogue(items),
        by_id(ids),
        padded(tokens),
        columns(round_up(args.width, panel)),
        transposed_(padded * args.width),
        packed_(padded * columns),
        exponentials_(args.has_gradient() ? args.items * padded : 0),
        largest_(items.stretches * padded),
        sums_(items.stretches * padded),
        parts_(args.hidden_gradient ? items.slices * padded * columns : 0),
        target_logit_(padded) {
    if (args.has_gradient()) expect_writes(exponentials_.get(), args.items * padded);
    if (args.weight_gradient) expect_writes(args.weight_gradient, args.items * args.width);
  }

  int64_t size() const { return padded; }

  void run(int64_t first_token) {
    first = first_token;
    count = std::min(padded, args.tokens - first);
    gather_tokens();
    const int64_t scratch = args.has_gradient() ? tile * columns : catalogue.stretch * padded;
    parallel_for(catalogue.slices, args.threads, scratch, [&](int64_t slice, float* memory) {
      catalogue.for_stretches(slice, [&](int64_t s, int64_t begin, int64_t end) {
        float* e = args.has_gradient() ? exponentials_.get() + begin * padded : memory;
        write_logits(s, begin, end, e);
        exponentiate(s, end - begin, e);
      });
    });
    for (int64_t t = 0; t < padded; ++t) finish_token(t);
    if (!args.has_gradient()) return;
    parallel_for(catalogue.slices, args.threads, scratch, [&](int64_t slice, float* memory) {
      if (args.hidden_gradient) std::fill_n(part(slice), padded * columns, 0.0f);
      catalogue.for_stretches(slice, [&](int64_t s, int64_t begin, int64_t end) {
        for (int64_t v = begin; v < end; v += tile) add_gradients(slice, s, v, std::min(end, v + tile), memory);
      });
    });
    if (args.hidden_gradient) write_hidden_gradient();
  }

 private:
  const LinearCrossEntropy& args;
  const Catalogue& catalogue;
  const ItemsById& by_id;
  const int64_t padded, columns;
  int64_t first = 0, count = 0;
  Scratch transposed_;      // the batch's rows of `hidden` in panels of tokens (panels, width, panel)
  Scratch packed_;          // the same in column panels of `padded` rows
  Scratch exponentials_;    // (items, padded)
  Scratch largest_, sums_;  // (stretches, padded); `sums_` later holds the factors from exponentials to gradients
  Scratch parts_;           // (slices): partial gradients of `hidden` in column panels of `padded` rows
  std::vector<float> target_logit_;
  std::vector<Candidate> targets_, left_out_;

  float* part(int64_t slice) { return parts_.get() + slice * padded * columns; }

  void gather_tokens() {
    const float* states = args.hidden + first * args.hidden_stride;
    for (int64_t t = 0; t < padded; t += panel) {
      pack_transposed(states + t * args.hidden_stride, args.hidden_stride, std::clamp<int64_t>(count - t, 0, panel),
                      args.width, transposed_.get() + t * args.width);
    }
    pack(states, args.hidden_stride, count, args.width, padded, packed_.get());
    targets_.clear();
    left_out_.clear();
    for (int64_t t = 0; t < count; ++t) {
      const int64_t target = args.target[first + t];
      targets_.push_back({target, t});
      if (args.token_ids) leave_out(args.token_ids[first + t], target, t);
    }
    std::stable_sort(targets_.begin(), targets_.end());
    std::stable_sort(left_out_.begin(), left_out_.end());
  }

  void leave_out(int64_t id, int64_t target, int64_t token) {
    auto at = std::lower_bound(by_id.begin(), by_id.end(), std::pair(id, int64_t{0}));
    for (; at != by_id.end() && at->first == id; ++at) {
      if (at->second != target) left_out_.push_back({at->second, token});
    }
  }

  void write_logits(int64_t s, int64_t begin, int64_t end, float* e) {
    float* largest = largest_.get() + s * padded;
    std::fill_n(largest, padded, lowest);
    for (int64_t first_item = begin; first_item < end; first_item += tile) {
      const int64_t last = std::min(end, first_item + tile);
      for (int64_t t = 0; t < padded; t += panel) {
        int64_t v = first_item;
        for (; v + rows <= last; v += rows) write_logits_of<rows>(v, t, e + (v - begin) * padded + t, largest + t);
        for (; v < last; ++v) write_logits_of<1>(v, t, e + (v - begin) * padded + t, largest + t);
      }
    }
    for_candidates(targets_, begin, end, [&](const Candidate& target) {
      target_logit_[target.token] = e[(target.item - begin) * padded + target.token];
    });
    // A logit that is left out may still be the stretch's largest, which does no harm.
    for_candidates(left_out_, begin, end, [&](const Candidate& other) {
      e[(other.item - begin) * padded + other.token] = lowest;
    });
  }

  template <int Rows>
  UQ_INLINE void write_logits_of(int64_t item, int64_t token, float* e, float* largest) {
    Accumulators<Rows> logits;
    logits.add_product(args.width, args.weight + item * args.weight_stride, args.weight_stride, 1,
                       transposed_.get() + token * args.width);
    Floats maximum[2] = {load(largest), load(largest + lanes)};
    for (int r = 0; r < Rows; ++r) {
      for (int half = 0; half < 2; ++half) {
        Floats x = logits.value[r][half];
        if (args.bias) x += broadcast(args.bias[item + r]);
        store(e + r * padded + half * lanes, x);
        maximum[half] = larger(x, maximum[half]);
      }
    }
    store(largest, maximum[0]);
    store(largest + lanes, maximum[1]);
  }

  void exponentiate(int64_t s, int64_t items, float* e) {
    const float* largest = largest_.get() + s * padded;
    float* sums = sums_.get() + s * padded;
    std::fill_n(sums, padded, 0.0f);
    for (int64_t v = 0; v < items; ++v) {
      for (int64_t t = 0; t < padded; t += lanes) {
        const Floats x = load(e + v * padded + t), below = x - load(largest + t);
        const Floats y = keep(~((x <= lowest) | (below < -87.0f)), exponential(below));
        store(e + v * padded + t, y);
        store(sums + t, load(sums + t) + y);
      }
    }
  }

  // Computes the token's loss, and for each stretch the factor from exponentials to gradients of logits.
  void finish_token(int64_t t) {
    float largest = lowest;
    for (int64_t s = 0; s < catalogue.stretches; ++s) largest = std::max(largest, largest_.get()[s * padded + t]);
    double sum = 0;
    for (int64_t s = 0; s < catalogue.stretches; ++s) {
      const int64_t at = s * padded + t;
      sum += sums_.get()[at] * std::exp(static_cast<double>(largest_.get()[at]) - largest);
    }
    if (t < count) args.losses[first + t] = static_cast<float>(largest + std::log(sum) - target_logit_[t]);
    const double share = t < count ? args.share / sum : 0.0;
    for (int64_t s = 0; args.has_gradient() && s < catalogue.stretches; ++s) {
      const int64_t at = s * padded + t;
      sums_.get()[at] = static_cast<float>(std::exp(static_cast<double>(largest_.get()[at]) - largest) * share);
    }
  }

  // Adds the gradients from items [begin, end), at most a tile, of stretch s; `memory` holds a tile of weights.
  void add_gradients(int64_t slice, int64_t s, int64_t begin, int64_t end, float* memory) {
    float* e = exponentials_.get() + begin * padded;
    const float* factor = sums_.get() + s * padded;
    for (int64_t v = 0; v < end - begin; ++v) {
      for (int64_t t = 0; t < padded; t += lanes) {
        store(e + v * padded + t, load(e + v * padded + t) * load(factor + t));
      }
    }
    for_candidates(targets_, begin, end, [&](const Candidate& target) {
      e[(target.item - begin) * padded + target.token] -= args.share;
    });
    if (args.weight_gradient) {
      int64_t v = begin;
      for (; v + rows <= end; v += rows) add_weight_gradient<rows>(v, e + (v - begin) * padded);
      for (; v < end; ++v) add_weight_gradient<1>(v, e + (v - begin) * padded);
    }
    if (args.hidden_gradient) {
      pack(args.weight + begin * args.weight_stride, args.weight_stride, end - begin, args.width, end - begin, memory);
      add_hidden_gradient(end - begin, e, memory, part(slice));
    }
  }

  template <int Rows>
  void add_weight_gradient(int64_t item, const float* e) {
    float* to = args.weight_gradient + item * args.width;
    int64_t column = 0;
    for (; column + panel <= args.width; column += panel) {
      Accumulators<Rows> sums;
      if (first > 0) sums.load_from(to + column, args.width);
      sums.add_product(count, e, padded, 1, packed_.get() + column * padded);
      sums.store_to(to + column, args.width);
    }
    if (column < args.width) add_last_columns<Rows>(column, e, to + column);
  }

  // The same for the last columns, fewer than a panel.
  template <int Rows>
  void add_last_columns(int64_t column, const float* e, float* to) {
    float values[Rows * panel];
    Accumulators<Rows> sums;
    sums.add_product(count, e, padded, 1, packed_.get() + column * padded);
    sums.store_to(values);
    for (int r = 0; r < Rows; ++r) {
      for (int64_t c = 0; c < args.width - column; ++c) {
        float& sum = to[r * args.width + c];
        sum = (first > 0 ? sum : 0.0f) + values[r * panel + c];
      }
    }
  }

  void add_hidden_gradient(int64_t items, const float* e, const float* weights, float* to) const {
    for (int64_t column = 0; column < columns; column += panel) {
      const float* right = weights + column * items;
      float* at = to + column * padded;
      int64_t t = 0;
      for (; t + rows <= count; t += rows) add_product_to<rows>(items, e + t, right, at + t * panel);
      for (; t + 4 <= count; t += 4) add_product_to<4>(items, e + t, right, at + t * panel);
      for (; t < count; ++t) add_product_to<1>(items, e + t, right, at + t * panel);
    }
  }

  template <int Rows>
  UQ_INLINE void add_product_to(int64_t items, const float* e, const float* right, float* to) const {
    Accumulators<Rows> sums;
    sums.load_from(to);
    sums.add_product(items, e, 1, padded, right);
    sums.store_to(to);
  }

  void write_hidden_gradient() {
    float* sum = part(0);
    for (int64_t slice = 1; slice < catalogue.slices; ++slice) {
      for (int64_t i = 0; i < padded * columns; i += lanes) store(sum + i, load(sum + i) + load(part(slice) + i));
    }
    unpack(sum, padded, count, args.width, 1.0f, args.hidden_gradient + first * args.width, args.width);
  }
};

inline void cross_entropy(const LinearCrossEntropy& args) {
  if (args.tokens == 0) {
    if (args.weight_gradient) std::fill_n(args.weight_gradient, args.items * args.width, 0.0f);
    return;
  }
  const Catalogue catalogue(args.items);
  const ItemsById by_id = items_by_id(args);
  Batch batch(args, catalogue, by_id, batch_tokens(args));
  for (int64_t first = 0; first < args.tokens; first += batch.size()) batch.run(first);
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
