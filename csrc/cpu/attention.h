// What both attention operators do around their scores. Included after simd.h and gemm.h, once for each instruction
// set.
//
// Queries are processed `panel` at a time. Scores are held transposed, with a row for each key and a lane for each
// query, so that neither K nor V needs transposing, only a panel of Q.

namespace uqabench::UQ_ISA {
namespace {

// The sizes of one task's matrices, padded to whole register blocks.
struct Shape {
  int64_t length, rows, width, value_width;  // rows: the padded length

  Shape(const AttentionInputs& in, int64_t sequence_length)
      : length(sequence_length),
        rows(round_up(sequence_length, panel)),
        width(round_up(in.width, panel)),
        value_width(round_up(in.value_width, panel)) {}
};

// Floats that cover the rounding of all pieces that a task takes from its Arena.
constexpr int64_t slack = 512;

// One head of one sequence: its packed keys and values, and the current panel of its queries.
struct Head {
  const AttentionInputs& in;
  const Shape& shape;
  int64_t start, head;
  float *k, *v, *q_transposed;
  // Of the current panel: its first query, the number of its queries, and the number of keys that they attend to,
  // padded to a register block.
  int64_t query = 0, queries = 0, keys = 0;

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

  // The products of keys [j, j + Rows) with the panel's queries, not scaled.
  template <int Rows>
  UQ_INLINE Accumulators<Rows> products(int64_t j) const {
    Accumulators<Rows> acc;
    acc.add_panels(in.width, k + j * panel, shape.rows, q_transposed);
    return acc;
  }

  // Writes the same to `out` (Rows, panel). It is not inlined because constants of the surrounding code would take
  // registers from the accumulators, and one accumulator in memory delays every step.
  template <int Rows>
  __attribute__((noinline)) void write_products(int64_t j, float* out) const {
    products<Rows>(j).store_to(out);
  }

  // Sets the panel's rows of `out` to factor * weights^T right, with weights (keys, panel) and right (keys, columns),
  // which is packed.
  void multiply_queries(const float* weights, const float* right, int64_t columns, float factor, float* out,
                        float* scratch) const {
    const int64_t panels = round_up(columns, panel) / panel, row = in.heads * columns;
    for (int64_t p = 0; p < panels; ++p) {
      for_each_block(panel, [&](auto rows, int64_t i) UQ_LAMBDA {
        Accumulators<rows()> acc;
        // Keys after the block's last query have weight 0.
        const int64_t attended = std::min(keys, query + i + rows());
        acc.add_product(attended, weights + i, 1, panel, right + p * shape.rows * panel);
        acc.store_to(scratch + (p * panel + i) * panel);
      });
    }
    unpack(scratch, panel, queries, columns, factor, out + (start + query) * row + head * columns, row);
  }
};

// Panels of queries whose contributions to the keys' and values' gradients are added at once. Each addition reads and
// writes all of these gradients, which for a single panel takes as long as its products.
constexpr int panels_at_once = 2;

// The gradients of one head's keys and values, and the current panels' contributions to them.
struct HeadGradient {
  const Head& head;
  HeadView grad;
  float *dk, *dv, *q, *g, *g_transposed;
  float *weights[panels_at_once], *score_gradients[panels_at_once];  // of each panel: (keys, panel)
  int64_t keys[panels_at_once] = {};                                 // of each panel; 0 where there is no such panel

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

  // Begins the panels from query `first` on. To be called before Head::begin_panel is called for each of them.
  void begin_panels(int64_t first) {
    const AttentionInputs& in = head.in;
    const int64_t queries = std::min<int64_t>(panels_at_once * panel, head.shape.length - first);
    pack(in.q.at(head.start + first, head.head), in.q.token_stride, queries, in.width, panels_at_once * panel, q);
    pack(grad_rows(first), grad.token_stride, queries, in.value_width, panels_at_once * panel, g);
    std::fill_n(keys, panels_at_once, 0);
    first_ = first;
  }

  // Begins panel i of them. To be called after Head::begin_panel.
  void begin_panel(int i) {
    keys[i] = head.keys;
    // A register block of a later panel may begin within this panel's keys and end past them.
    const int64_t past = (std::min(head.keys + tall, head.shape.rows) - head.keys) * panel;
    std::fill_n(weights[i] + head.keys * panel, past, 0.0f);
    std::fill_n(score_gradients[i] + head.keys * panel, past, 0.0f);
    pack_transposed(grad_rows(head.query), grad.token_stride, head.queries, head.in.value_width, g_transposed);
  }

  // The gradients of the weights of keys [j, j + Rows).
  template <int Rows>
  UQ_INLINE Accumulators<Rows> weight_gradients(int64_t j) const {
    Accumulators<Rows> acc;
    acc.add_panels(head.in.value_width, head.v + j * panel, head.shape.rows, g_transposed);
    return acc;
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
    unpack(dk, head.shape.rows, head.shape.length, in.width, key_factor,
           to_k + head.start * row + head.head * in.width, row);
    unpack(dv, head.shape.rows, head.shape.length, in.value_width, value_factor,
           to_v + head.start * value_row + head.head * in.value_width, value_row);
  }

 private:
  int64_t first_ = 0;  // the first query of the first panel

  // Adds each panel's `from` (keys, panel) times right (queries, columns) to `into` (keys, columns), all packed.
  void accumulate(float* const* from, const float* right, int64_t columns, float* into) const {
    // One stretch of keys at a time, so that its weights stay in the L1 cache for all columns.
    constexpr int64_t stretch = 48;
    const int64_t end = *std::max_element(keys, keys + panels_at_once);
    for (int64_t begin = 0; begin < end; begin += stretch) {
      for (int64_t p = 0; p < columns / panel; ++p) {
        add_stretch(from, right + p * panels_at_once * panel * panel, begin, std::min(begin + stretch, end),
                    into + p * head.shape.rows * panel);
      }
    }
  }

  // The same for keys [begin, end) and one panel of columns.
  void add_stretch(float* const* from, const float* right, int64_t begin, int64_t end, float* into) const {
    for_each_block(end - begin, [&](auto rows, int64_t r) UQ_LAMBDA {
      const int64_t j = begin + r;
      Accumulators<rows()> acc;
      acc.load_from(into + j * panel);
      for (int i = 0; i < panels_at_once; ++i) {
        if (j >= keys[i]) continue;
        const int64_t skipped = std::max<int64_t>(j - first_ - i * panel, 0);  // queries before key j have weight 0
        acc.add_product(panel - skipped, from[i] + j * panel + skipped, panel, 1,
                        right + (i * panel + skipped) * panel);
      }
      acc.store_to(into + j * panel);
    });
  }
};

}  // namespace
}  // namespace uqabench::UQ_ISA
