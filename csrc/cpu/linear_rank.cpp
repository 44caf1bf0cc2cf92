#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/linear_rank.h"

#include <algorithm>
#include <vector>

#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/linear_rank.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void linear_rank(const LinearRank& args) {
  static constexpr decltype(&baseline::count_ranks) kernel[] = UQ_TABLE(count_ranks);
  if (args.tokens > 0) kernel[static_cast<int>(current_isa())](args);
}

}  // namespace uqabench
#else

#include "cpu/simd.h"
#include "cpu/gemm.h"

namespace uqabench::UQ_ISA {
namespace {

// What every item is compared with: the tokens' rows of `hidden`, transposed in panels of `panel` tokens, and the score
// and the index of each token's target.
struct RankTokens {
  const float* states;    // (panels, width, panel)
  const float* target_score;  // (panels, panel)
  const int32_t* target;      // (panels, panel)
};

// Adds to `counts` (panels, panel) the number of items of [first, first + Rows) that rank before each token's target.
template <int Rows>
inline void count_items(const LinearRank& args, const RankTokens& tokens, int64_t first, int64_t p, int32_t* counts) {
  Accumulators<Rows> scores;
  scores.add_product(args.width, args.weight + first * args.weight_stride, args.weight_stride, 1,
                     tokens.states + p * args.width * panel);
  for (int half = 0; half < 2; ++half) {
    const int64_t at = p * panel + half * lanes;
    const Floats target_score = load(tokens.target_score + at);
    const Ints target = load(tokens.target + at);
    Ints count = load(counts + at);
    for (int r = 0; r < Rows; ++r) {
      const Floats score = scores.value[r][half];
      const Ints is_before = target > static_cast<int32_t>(first + r);
      count -= ~(score <= target_score) | ((score == target_score) & is_before);
    }
    store(counts + at, count);
  }
}

inline void count_chunk(const LinearRank& args, const RankTokens& tokens, int64_t begin, int64_t end, int32_t* counts) {
  const int64_t panels = (args.tokens + panel - 1) / panel;
  // A slice of the catalogue stays in the nearest caches (32 KiB at width 128) while all panels are processed.
  constexpr int64_t slice = 64;
  for (int64_t first = begin; first < end; first += slice) {
    const int64_t last = std::min(end, first + slice);
    for (int64_t p = 0; p < panels; ++p) {
      int64_t item = first;
      for (; item + block <= last; item += block) count_items<block>(args, tokens, item, p, counts);
      for (; item < last; ++item) count_items<1>(args, tokens, item, p, counts);
    }
  }
}

// The targets' scores, computed by the same operations as the candidates', so that a target equals itself exactly.
inline void target_scores(const LinearRank& args, const float* states, float* target_score) {
  for (int64_t t = 0; t < args.tokens; ++t) {
    Accumulators<1> score;
    score.add_product(args.width, args.weight + args.target[t] * args.weight_stride, 0, 1,
                      states + t / panel * args.width * panel);
    float values[panel];
    score.store_to(values);
    target_score[t] = values[t % panel];
  }
}

inline void count_ranks(const LinearRank& args) {
  const int64_t panels = (args.tokens + panel - 1) / panel, padded = panels * panel;
  const Scratch states(padded * args.width);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t first = p * panel;
    pack_transposed(args.hidden + first * args.hidden_stride, args.hidden_stride,
                    std::min<int64_t>(panel, args.tokens - first), args.width, states.get() + first * args.width);
  }
  std::vector<float> target_score(padded, 0.0f);
  std::vector<int32_t> target(padded, 0);
  target_scores(args, states.get(), target_score.data());
  for (int64_t t = 0; t < args.tokens; ++t) target[t] = static_cast<int32_t>(args.target[t]);

  // Chunks of equal size, a few for each thread, with counts of their own. The order of adding integers does not
  // matter.
  const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(args.threads * 4, args.items / 256));
  const int64_t size = (args.items + chunks - 1) / chunks;
  std::vector<int32_t> counts(chunks * padded, 0);
  const RankTokens tokens{states.get(), target_score.data(), target.data()};
  parallel_for(chunks, args.threads, 0, [&](int64_t chunk, float*) {
    const int64_t begin = chunk * size;
    count_chunk(args, tokens, begin, std::min(args.items, begin + size), counts.data() + chunk * padded);
  });
  for (int64_t t = 0; t < args.tokens; ++t) {
    int64_t rank = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) rank += counts[chunk * padded + t];
    args.rank[t] = std::min(rank, args.items - 1);  // a target whose score is NaN has counted itself
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
