// HSTU attention where targets, a local window or a contextual prefix say which keys a query sees.
#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/hstu_tasks.h"
#include "cpu/parallel.h"

namespace uqabench {

// Steps of one sequence's tokens: the prefix's are 0, the rest of the history's 1, 2, ..., all targets' the next one.
struct HstuSteps {
  int64_t length, history, prefix, window;

  HstuSteps(const HstuAttention& args, const HstuLimits& limits, int64_t b)
      : length(args.length(b)),
        history(length - (limits.num_targets ? limits.num_targets[b] : 0)),
        prefix(std::min(history, limits.contextual_seq_len)),
        window(limits.max_attn_len ? limits.max_attn_len : std::numeric_limits<int32_t>::max()) {}

  int32_t of(int64_t position) const {
    return static_cast<int32_t>(std::max<int64_t>(std::min(position, history) - prefix + 1, 0));
  }
  int32_t of_targets() const { return of(history); }

  // The first and the position past the last key that queries [begin, end) see, apart from padding.
  int64_t first_key(int64_t begin) const {
    const int64_t at = std::min(begin, history);
    return of(begin) <= window ? 0 : at - window;
  }
  int64_t last_key(int64_t begin, int64_t end) const { return begin < prefix ? std::max(history, end) : end; }
};

}  // namespace uqabench

#define UQ_SOURCE "cpu/hstu_limited.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void hstu_limited_forward(const HstuAttention& args, const HstuLimits& limits, float* out) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  static constexpr decltype(&baseline::scratch_size) scratch_sizes[] = UQ_TABLE(scratch_size);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = hstu_tasks(args);
  const TimeBuckets buckets = hstu_buckets(args);
  parallel_for(static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, limits, args.longest()),
               [&](int64_t i, float* scratch) { kernels[isa](args, limits, buckets, tasks[i], out, scratch); });
}

void hstu_limited_backward(const HstuAttention& args, const HstuLimits& limits, const HeadView& grad,
                           const HstuGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::scratch_size) scratch_sizes[] = UQ_TABLE(scratch_size);
  const int isa = static_cast<int>(current_isa());
  const std::vector<HeadRange> tasks = hstu_tasks(args);
  const TimeBuckets buckets = hstu_buckets(args);
  HstuTableSums sums(args, 2);
  parallel_for(static_cast<int64_t>(tasks.size()), args.threads, scratch_sizes[isa](args, limits, args.longest()),
               [&](int64_t i, float* scratch) {
                 kernels[isa](args, limits, buckets, grad, tasks[i], gradients, sums, scratch);
               });
  sums.write(args, gradients);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/gemm.h"
#include "cpu/attention.h"
#include "cpu/hstu_bias.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// What one sequence's heads share: the steps, the tables, and the time bucket of each pair in the order of its panels.
struct Pairs {
  const HstuAttention& args;
  HstuSteps steps;
  int64_t rows;
  int32_t* step;                       // (rows)
  HstuTables<1> tables;
  uint8_t *buckets, *panel_buckets;
  // Of the current panel of queries.
  int64_t query = 0, first = 0, last = 0;

  static int64_t most_pairs(int64_t rows, int64_t prefix) {
    const int64_t panels = rows / panel;
    return (panels * (panels + 1) / 2 * panel + round_up(std::min(prefix, rows), panel) / panel * rows) * panel;
  }
  static int64_t scratch(int64_t rows, int64_t prefix) {
    return rows + HstuTables<1>::scratch(2 * rows + panel) + most_pairs(rows, prefix) / 4 + 128;
  }

  Pairs(const HstuAttention& in, const HstuLimits& limits, const TimeBuckets& table, const HeadRange& task,
        int64_t padded, Arena& arena)
      : args(in),
        steps(in, limits, task.sequence),
        rows(padded),
        step(reinterpret_cast<int32_t*>(arena.take(padded))),
        tables(in, {padded, padded + panel, steps.length, 2}, arena),
        buckets(reinterpret_cast<uint8_t*>(arena.take(most_pairs(padded, limits.contextual_seq_len) / 4))) {
    for (int64_t i = 0; i < rows; ++i) step[i] = steps.of(i);
    if (!args.time_bias) return;
    begin_head();
    for (int64_t begin = 0; begin < steps.length; begin += panel) {
      begin_panel(begin);
      const int64_t* times = args.timestamps + args.offsets[task.sequence];
      fill_buckets(table, times, steps.length, begin, first, last, panel_buckets);
    }
  }

  void begin_head() {
    panel_buckets = buckets;
    query = first = last = 0;
    tables.clear_gradients();
  }

  // The panels of a head are begun in order.
  void begin_panel(int64_t begin) {
    panel_buckets += (last - first) * panel;
    query = begin;
    first = steps.first_key(begin) / block * block;
    last = round_up(steps.last_key(begin, std::min(begin + panel, steps.length)), block);
  }

  // -1 in the lanes from `lane` on whose query sees key j.
  UQ_INLINE Ints seen(int64_t j, int lane) const {
    Ints index;
    for (int i = 0; i < lanes; ++i) index[i] = i;
    const Ints own = load(step + query + lane), ahead = own - step[j];
    const Ints earlier = (ahead > 0) & (ahead <= static_cast<int32_t>(steps.window));
    const Ints prefix = (own == 0) & (Ints{} + step[j] < steps.of_targets());
    return earlier | prefix | (index == static_cast<int32_t>(j - query - lane));
  }

  UQ_INLINE Floats bias(int64_t j, int lane) const {
    return tables.of(query + lane - j, panel_buckets + (j - first) * panel + lane);
  }

  // Adds the gradients of key j's scores, which are zero where it is not seen, to the tables' gradients.
  void accumulate(int64_t j, const float* gradient) {
    tables.accumulate(query - j, panel_buckets + (j - first) * panel, gradient);
  }
};

// Sets the panel's rows of `out` to factor * weights^T right over the keys that the panel sees.
inline void multiply_panel(const Head& head, const Pairs& pairs, const float* weights, const float* right,
                           int64_t columns, float factor, float* out, float* scratch) {
  const int64_t row = head.in.heads * columns;
  for (int64_t p = 0; p < round_up(columns, panel) / panel; ++p) {
    for_each_block(panel, [&](auto rows, int64_t i) UQ_LAMBDA {
      Accumulators<rows()> acc;
      acc.add_product(pairs.last - pairs.first, weights + pairs.first * panel + i, 1, panel,
                      right + (p * head.shape.rows + pairs.first) * panel);
      acc.store_to(scratch + (p * panel + i) * panel);
    });
  }
  unpack(scratch, panel, head.queries, columns, factor, out + (head.start + head.query) * row + head.head * columns,
         row);
}

// Adds the panel's weights (keys, panel) times right (queries, columns), packed, to `into` (keys, columns), packed.
inline void add_panel(const Head& head, const Pairs& pairs, const float* weights, const float* right, int64_t columns,
                      float* into) {
  for (int64_t p = 0; p < columns / panel; ++p) {
    for_each_block(pairs.last - pairs.first, [&](auto rows, int64_t r) UQ_LAMBDA {
      const int64_t j = pairs.first + r;
      Accumulators<rows()> acc;
      float* to = into + (p * head.shape.rows + j) * panel;
      acc.load_from(to);
      acc.add_product(panel, weights + j * panel, panel, 1, right + p * panel * panel);
      acc.store_to(to);
    });
  }
}

inline int64_t scratch_size(const HstuAttention& args, const HstuLimits& limits, int64_t longest) {
  const Shape s(args, longest);
  const int64_t sides = s.width + s.value_width;
  return Head::scratch(s) + Pairs::scratch(s.rows, limits.contextual_seq_len) + s.rows * (sides + 2 * panel) +
         panel * 4 * sides + slack;
}

inline void forward(const HstuAttention& args, const HstuLimits& limits, const TimeBuckets& buckets,
                    const HeadRange& task, float* out, float* scratch) {
  const Shape shape(args, args.length(task.sequence));
  Arena shared{scratch};
  Pairs pairs(args, limits, buckets, task, shape.rows, shared);
  for (int64_t h = task.begin; h < task.end; ++h) {
    Arena arena = shared;
    Head head(args, shape, args.offsets[task.sequence], h, arena);
    float* weights = arena.take(shape.rows * panel);
    float* result = arena.take(shape.value_width * panel);
    pairs.begin_head();
    for (int64_t query = 0; query < shape.length; query += panel) {
      head.begin_panel(query);
      pairs.begin_panel(query);
      for_each_block(pairs.last - pairs.first, [&](auto rows, int64_t r0) UQ_LAMBDA {
        const int64_t j = pairs.first + r0;
        head.write_products<rows()>(j, weights + j * panel);
        for (int r = 0; r < rows(); ++r) {
          for (int lane = 0; lane < panel; lane += lanes) {
            float* weight = weights + (j + r) * panel + lane;
            const Floats x = multiply_add(load(weight), broadcast(args.scale), pairs.bias(j + r, lane));
            write_weights(x, pairs.seen(j + r, lane), weight);
          }
        }
      });
      multiply_panel(head, pairs, weights, head.v, args.value_width, 1.0f / static_cast<float>(args.max_len), out,
                     result);
    }
  }
}

// One head's gradients: of its keys and values as sums over the panels, and of each panel's queries.
inline void backward_head(const HstuAttention& args, const HeadView& grad, Head& head, Pairs& pairs,
                          const HstuGradients& gradients, Arena arena) {
  const Shape& s = head.shape;
  float *dk = arena.take(s.rows * s.width), *dv = arena.take(s.rows * s.value_width);
  float *weights = arena.take(s.rows * panel), *d_scores = arena.take(s.rows * panel);
  float *q = arena.take(panel * s.width), *g = arena.take(panel * s.value_width);
  float *g_transposed = arena.take(s.value_width * panel), *dq = arena.take(s.width * panel);
  const float share = 1.0f / static_cast<float>(args.max_len);
  std::fill_n(dk, s.rows * s.width, 0.0f);
  std::fill_n(dv, s.rows * s.value_width, 0.0f);
  pairs.begin_head();
  for (int64_t query = 0; query < s.length; query += panel) {
    head.begin_panel(query);
    pairs.begin_panel(query);
    const float* rows_of_grad = grad.at(head.start + query, head.head);
    pack(head.query_rows(), args.q.token_stride, head.queries, args.width, panel, q);
    pack(rows_of_grad, grad.token_stride, head.queries, args.value_width, panel, g);
    pack_transposed(rows_of_grad, grad.token_stride, head.queries, args.value_width, g_transposed);
    for_each_block(pairs.last - pairs.first, [&](auto rows, int64_t r0) UQ_LAMBDA {
      const int64_t j = pairs.first + r0;
      head.write_products<rows()>(j, weights + j * panel);
      Accumulators<rows()> d_weights;
      d_weights.add_panels(args.value_width, head.v + j * panel, s.rows, g_transposed);
      d_weights.store_to(d_scores + j * panel);
      for (int r = 0; r < rows(); ++r) {
        for (int lane = 0; lane < panel; lane += lanes) {
          float* weight = weights + (j + r) * panel + lane;
          float* d_score = d_scores + (j + r) * panel + lane;
          const Floats x = multiply_add(load(weight), broadcast(args.scale), pairs.bias(j + r, lane));
          write_weights(x, pairs.seen(j + r, lane), share, weight, d_score);
        }
        pairs.accumulate(j + r, d_scores + (j + r) * panel);
      }
    });
    multiply_panel(head, pairs, d_scores, head.k, args.width, args.scale, gradients.q, dq);
    add_panel(head, pairs, d_scores, q, s.width, dk);
    add_panel(head, pairs, weights, g, s.value_width, dv);
  }
  const int64_t row = args.heads * args.width, value_row = args.heads * args.value_width;
  unpack(dk, s.rows, s.length, args.width, args.scale, gradients.k + head.start * row + head.head * args.width, row);
  unpack(dv, s.rows, s.length, args.value_width, share,
         gradients.v + head.start * value_row + head.head * args.value_width, value_row);
}

inline void backward(const HstuAttention& args, const HstuLimits& limits, const TimeBuckets& buckets,
                     const HeadView& grad, const HeadRange& task, const HstuGradients& gradients,
                     HstuTableSums& sums, float* scratch) {
  const Shape shape(args, args.length(task.sequence));
  Arena shared{scratch};
  Pairs pairs(args, limits, buckets, task, shape.rows, shared);
  for (int64_t h = task.begin; h < task.end; ++h) {
    Arena arena = shared;
    Head head(args, shape, args.offsets[task.sequence], h, arena);
    backward_head(args, grad, head, pairs, gradients, arena);
    pairs.tables.write_gradients(sums.position_of(args, task.sequence, h), sums.time_of(args, task.sequence, h));
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
