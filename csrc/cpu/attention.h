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

  // Products of keys [j, j + block) with the panel's queries, not scaled.
  UQ_INLINE Sums<block> products(int64_t j) const {
    Sums<block> sums;
    sums.add_panels(in.width, k + j * panel, shape.rows, q_transposed);
    return sums;
  }

  // out rows of the panel = factor * transposed weights (keys, panel) times right (keys, columns), which is packed.
  void multiply_queries(const float* weights, const float* right, int64_t columns, float factor, float* out,
                        float* scratch) const {
    const int64_t panels = round_up(columns, panel) / panel, row = in.heads * columns;
    for (int64_t p = 0; p < panels; ++p) {
      for (int i = 0; i < panel; i += block) {
        Sums<block> sums;
        // Keys after the block's last query have weight 0.
        const int64_t seen = std::min(keys, query + i + block);
        sums.add_product(seen, weights + i, 1, panel, right + p * shape.rows * panel);
        sums.store_to(scratch + (p * panel + i) * panel);
      }
    }
    unpack(scratch, panel, queries, columns, factor, out + (start + query) * row + head * columns, row);
  }
};

// The gradients of one head's keys and values, and the panel's share of them.
struct HeadGradient {
  const Head& of;
  HeadView grad;
  float *dk, *dv, *q, *g, *g_transposed;

  static int64_t scratch(const Shape& s) {
    return s.rows * (s.width + s.value_width) + panel * (s.width + 2 * s.value_width);
  }

  HeadGradient(const Head& head, const HeadView& grad_view, Arena& arena)
      : of(head),
        grad(grad_view),
        dk(arena.take(head.shape.rows * head.shape.width)),
        dv(arena.take(head.shape.rows * head.shape.value_width)),
        q(arena.take(panel * head.shape.width)),
        g(arena.take(panel * head.shape.value_width)),
        g_transposed(arena.take(head.shape.value_width * panel)) {
    std::fill_n(dk, head.shape.rows * head.shape.width, 0.0f);
    std::fill_n(dv, head.shape.rows * head.shape.value_width, 0.0f);
  }

  const float* grad_rows() const { return grad.at(of.start + of.query, of.head); }

  // After the head's own begin_panel.
  void begin_panel() {
    const AttentionInputs& in = of.in;
    pack(of.query_rows(), in.q.token_stride, of.queries, in.width, panel, q);
    pack(grad_rows(), grad.token_stride, of.queries, in.value_width, panel, g);
    pack_transposed(grad_rows(), grad.token_stride, of.queries, in.value_width, g_transposed);
  }

  // The gradient of the weights of keys [j, j + block).
  UQ_INLINE Sums<block> weight_gradients(int64_t j) const {
    Sums<block> sums;
    sums.add_panels(of.in.value_width, of.v + j * panel, of.shape.rows, g_transposed);
    return sums;
  }

  void add_panel(const float* weights, const float* slopes) {
    accumulate(weights, g, of.shape.value_width, dv);
    accumulate(slopes, q, of.shape.width, dk);
  }

  void write(float key_factor, float value_factor, float* to_k, float* to_v) const {
    const AttentionInputs& in = of.in;
    const int64_t row = in.heads * in.width, value_row = in.heads * in.value_width;
    unpack(dk, of.shape.rows, of.shape.length, in.width, key_factor, to_k + of.start * row + of.head * in.width, row);
    unpack(dv, of.shape.rows, of.shape.length, in.value_width, value_factor,
           to_v + of.start * value_row + of.head * in.value_width, value_row);
  }

 private:
  // into (keys, columns) += transposed weights (keys, panel) times right (panel queries, columns), both packed.
  void accumulate(const float* weights, const float* right, int64_t columns, float* into) const {
    for (int64_t p = 0; p < columns / panel; ++p) {
      for (int64_t j = 0; j < of.keys; j += block) {
        const int64_t skipped = std::max<int64_t>(j - of.query, 0);  // queries before key j have weight 0
        float* to = into + (p * of.shape.rows + j) * panel;
        Sums<block> sums;
        sums.load_from(to);
        sums.add_product(panel - skipped, weights + j * panel + skipped, panel, 1,
                         right + (p * panel + skipped) * panel);
        sums.store_to(to);
      }
    }
  }
};

}  // namespace
}  // namespace uqabench::UQ_ISA
