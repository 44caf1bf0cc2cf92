// What both attentions do around their scores. No include guard: see simd.h, included before with gemm.h.
//
// Queries are taken `panel` at a time. Scores are held transposed, one row a key and one lane a query, so that neither
// K nor V needs transposing, only a panel of Q.

namespace uqabench::UQ_ISA {
namespace {

// The sizes of one task's matrices, padded to whole register blocks.
struct Shape {
  int64_t length, rows, width, value_width;  // rows: the length, padded

  Shape(const AttentionInputs& in, int64_t sequence_length)
      : length(sequence_length),
        rows(round_up(sequence_length, panel)),
        width(round_up(in.width, panel)),
        value_width(round_up(in.value_width, panel)) {}
};

// Pieces of an Arena are rounded up; this covers all of them.
constexpr int64_t slack = 512;

// One head of one sequence: its keys and values packed, and a panel of its queries at a time.
struct Head {
  const AttentionInputs& in;
  const Shape& shape;
  int64_t start, head;
  float *k, *v, *q_transposed;
  int64_t query = 0, queries = 0, keys = 0;  // of the current panel; keys: those it sees, padded to a register block

  static int64_t scratch(const Shape& s) { return s.rows * (s.width + s.value_width) + s.width * panel; }

  Head(const AttentionInputs& inputs, const Shape& s, int64_t first_token, int64_t h, Arena& arena)
      : in(inputs),
        shape(s),
        start(first_token),
        head(h),
        k(arena.take(s.rows * s.width)),
        v(arena.take(s.rows * s.value_width)),
        q_transposed(arena.take(s.width * panel)) {
    pack(in.k.at(start, head), in.k.token_stride, s.length, in.width, s.rows, k);
    pack(in.v.at(start, head), in.v.token_stride, s.length, in.value_width, s.rows, v);
  }

  const float* query_rows() const { return in.q.at(start + query, head); }

  void begin_panel(int64_t first_query) {
    query = first_query;
    queries = std::min<int64_t>(panel, shape.length - query);
    keys = round_up(query + queries, block);
    pack_transposed(query_rows(), in.q.token_stride, queries, in.width, q_transposed);
  }

  // Products of keys [j, j + Rows) with the panel's queries, not scaled.
  template <int Rows>
  UQ_INLINE Accumulators<Rows> products(int64_t j) const {
    Accumulators<Rows> sums;
    sums.add_panels(in.width, k + j * panel, shape.rows, q_transposed);
    return sums;
  }

  // The same, in `out` (Rows, panel). Not inlined: constants of the code around would take registers from the sums, and
  // one that waits for memory at every step makes the backward pass 1.25 times slower.
  template <int Rows>
  __attribute__((noinline)) void write_products(int64_t j, float* out) const {
    products<Rows>(j).store_to(out);
  }

  // out rows of the panel = factor * transposed weights (keys, panel) times right (keys, columns), which is packed.
  void multiply_queries(const float* weights, const float* right, int64_t columns, float factor, float* out,
                        float* scratch) const {
    const int64_t panels = round_up(columns, panel) / panel, row = in.heads * columns;
    for (int64_t p = 0; p < panels; ++p) {
      for_each_block(panel, [&](auto rows, int64_t i) UQ_LAMBDA {
        Accumulators<rows()> sums;
        // Keys after the block's last query have weight 0.
        const int64_t seen = std::min(keys, query + i + rows());
        sums.add_product(seen, weights + i, 1, panel, right + p * shape.rows * panel);
        sums.store_to(scratch + (p * panel + i) * panel);
      });
    }
    unpack(scratch, panel, queries, columns, factor, out + (start + query) * row + head * columns, row);
  }
};

// Panels of queries whose share of the keys' and values' gradients is added at once: each time, all of them are read
// and written, which for one panel takes as long as its products.
constexpr int panels_at_once = 2;

// The gradients of one head's keys and values, and the panels' share of them.
struct HeadGradient {
  const Head& head;
  HeadView grad;
  float *dk, *dv, *q, *g, *g_transposed;
  float *weights[panels_at_once], *score_gradients[panels_at_once];  // of each panel: (keys, panel); score_gradients: the scores' gradient
  int64_t keys[panels_at_once] = {};                  // of each panel, 0 where there is none

  static int64_t scratch(const Shape& s) {
    return s.rows * (s.width + s.value_width + 2 * panels_at_once * panel) +
           panel * (panels_at_once * (s.width + s.value_width) + s.value_width);
  }

  HeadGradient(const Head& head, const HeadView& grad_view, Arena& arena)
      : head(head),
        grad(grad_view),
        dk(arena.take(head.shape.rows * head.shape.width)),
        dv(arena.take(head.shape.rows * head.shape.value_width)),
        q(arena.take(panels_at_once * panel * head.shape.width)),
        g(arena.take(panels_at_once * panel * head.shape.value_width)),
        g_transposed(arena.take(head.shape.value_width * panel)) {
    std::fill_n(dk, head.shape.rows * head.shape.width, 0.0f);
    std::fill_n(dv, head.shape.rows * head.shape.value_width, 0.0f);
    for (int i = 0; i < panels_at_once; ++i) {
      weights[i] = arena.take(head.shape.rows * panel);
      score_gradients[i] = arena.take(head.shape.rows * panel);
    }
  }

  const float* grad_rows(int64_t query) const { return grad.at(head.start + query, head.head); }

  // Before the head's own begin_panel for each of the panels from query `first` on.
  void begin_panels(int64_t first) {
    const AttentionInputs& in = head.in;
    const int64_t queries = std::min<int64_t>(panels_at_once * panel, head.shape.length - first);
    pack(in.q.at(head.start + first, head.head), in.q.token_stride, queries, in.width, panels_at_once * panel, q);
    pack(grad_rows(first), grad.token_stride, queries, in.value_width, panels_at_once * panel, g);
    std::fill_n(keys, panels_at_once, 0);
    first_ = first;
  }

  // After the head's own begin_panel.
  void begin_panel(int i) {
    keys[i] = head.keys;
    // A later panel's register block may begin among this one's keys and end past them.
    const int64_t past = (std::min(head.keys + tall, head.shape.rows) - head.keys) * panel;
    std::fill_n(weights[i] + head.keys * panel, past, 0.0f);
    std::fill_n(score_gradients[i] + head.keys * panel, past, 0.0f);
    pack_transposed(grad_rows(head.query), grad.token_stride, head.queries, head.in.value_width, g_transposed);
  }

  // The gradient of the weights of keys [j, j + Rows).
  template <int Rows>
  UQ_INLINE Accumulators<Rows> weight_gradients(int64_t j) const {
    Accumulators<Rows> sums;
    sums.add_panels(head.in.value_width, head.v + j * panel, head.shape.rows, g_transposed);
    return sums;
  }

  template <int Rows>
  __attribute__((noinline)) void write_weight_gradients(int64_t j, float* out) const {
    weight_gradients<Rows>(j).store_to(out);
  }

  void add_panels() {
    accumulate(weights, g, head.shape.value_width, dv);
    accumulate(score_gradients, q, head.shape.width, dk);
  }

  void write(float key_factor, float value_factor, float* to_k, float* to_v) const {
    const AttentionInputs& in = head.in;
    const int64_t row = in.heads * in.width, value_row = in.heads * in.value_width;
    unpack(dk, head.shape.rows, head.shape.length, in.width, key_factor, to_k + head.start * row + head.head * in.width, row);
    unpack(dv, head.shape.rows, head.shape.length, in.value_width, value_factor,
           to_v + head.start * value_row + head.head * in.value_width, value_row);
  }

 private:
  int64_t first_ = 0;  // query of the first panel

  // into (keys, columns) += transposed weights (keys, panel) of each panel times right (queries, columns), both packed.
  void accumulate(float* const* from, const float* right, int64_t columns, float* into) const {
    // A stretch of keys at a time: its weights stay in the first cache while all columns pass.
    constexpr int64_t stretch = 48;
    const int64_t end = *std::max_element(keys, keys + panels_at_once);
    for (int64_t begin = 0; begin < end; begin += stretch) {
      for (int64_t p = 0; p < columns / panel; ++p) {
        add_stretch(from, right + p * panels_at_once * panel * panel, begin, std::min(begin + stretch, end),
                    into + p * head.shape.rows * panel);
      }
    }
  }

  // Keys [begin, end) and one panel of columns.
  void add_stretch(float* const* from, const float* right, int64_t begin, int64_t end, float* into) const {
    for_each_block(end - begin, [&](auto rows, int64_t r) UQ_LAMBDA {
      const int64_t j = begin + r;
      Accumulators<rows()> sums;
      sums.load_from(into + j * panel);
      for (int i = 0; i < panels_at_once; ++i) {
        if (j >= keys[i]) continue;
        const int64_t skipped = std::max<int64_t>(j - first_ - i * panel, 0);  // queries before key j have weight 0
        sums.add_product(panel - skipped, from[i] + j * panel + skipped, panel, 1,
                         right + (i * panel + skipped) * panel);
      }
      sums.store_to(into + j * panel);
    });
  }
};

}  // namespace
}  // namespace uqabench::UQ_ISA
