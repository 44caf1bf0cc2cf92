// Register-blocked products of small fp32 matrices, and their packing. Included after simd.h, once for each instruction
// set.
//
// Matrices are packed in *column panels*: panel p holds columns [p * panel, (p + 1) * panel), row after row, and the
// last panel is padded with zeros. A packed copy serves both as a left factor (elements broadcast) and as a right one
// (vectors).

namespace uqabench::UQ_ISA {

constexpr int panel = 2 * lanes;              // columns of a panel and of a register block: two vectors
constexpr int block = UQ_LANES == 16 ? 8 : 4;  // rows of a register block: 2 * block accumulators fit the registers
// Rows of the tallest block that fits. On AVX2 twelve accumulators keep both multipliers busy; with eight, each
// addition has to wait for the one before.
constexpr int tall = UQ_LANES == 16 ? 8 : 6;

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Calls f(rows, first) for register blocks that cover the rows [0, n), where n is a multiple of `block`: first blocks
// of `block` rows until the rest is a multiple of `tall`, then blocks of `tall` rows. `rows` is a
// std::integral_constant.
template <typename F>
UQ_INLINE void for_each_block(int64_t n, F f) {
  int64_t first = 0;
  for (; (n - first) % tall != 0; first += block) f(std::integral_constant<int, block>(), first);
  for (; first < n; first += tall) f(std::integral_constant<int, tall>(), first);
}

// The accumulators of a register block: `Rows` rows by `panel` columns.
template <int Rows>
struct Accumulators {
  Floats value[Rows][2] = {};

  UQ_INLINE void load_from(const float* c, int64_t row_stride = panel) {
    for (int r = 0; r < Rows; ++r) {
      value[r][0] = load(c + r * row_stride);
      value[r][1] = load(c + r * row_stride + lanes);
    }
  }

  UQ_INLINE void store_to(float* c, int64_t row_stride = panel) const {
    for (int r = 0; r < Rows; ++r) {
      store(c + r * row_stride, value[r][0]);
      store(c + r * row_stride + lanes, value[r][1]);
    }
  }

  // Adds the product of a (Rows x depth; element (r, k) is a[r * a_row + k * a_depth]) and b (depth x panel, rows
  // `panel` apart). Every accumulator adds its terms in the order of k.
  UQ_INLINE void add_product(int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b) {
    for (int64_t k = 0; k < depth; ++k) {
      const Floats b0 = load(b + k * panel), b1 = load(b + k * panel + lanes);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const Floats x = broadcast(a[r * a_row + k * a_depth]);
        value[r][0] = multiply_add(x, b0, value[r][0]);
        value[r][1] = multiply_add(x, b1, value[r][1]);
      }
    }
  }

  // Adds the product of a and b, where `a` points to a row of a matrix in column panels of `a_rows` rows, and b is
  // (depth x panel).
  UQ_INLINE void add_panels(int64_t depth, const float* a, int64_t a_rows, const float* b) {
    for (int64_t k = 0; k < depth; k += panel) {
      add_product(depth - k < panel ? depth - k : panel, a + k * a_rows, panel, 1, b + k * panel);
    }
  }
};

// Packs a matrix (rows, columns), whose rows lie `row_stride` apart, into column panels of `padded_rows` rows; the rows
// that it lacks are zeroed.
inline void pack(const float* x, int64_t row_stride, int64_t rows, int64_t columns, int64_t padded_rows, float* out) {
  for (int64_t first = 0; first < columns; first += panel, out += padded_rows * panel) {
    const int64_t width = columns - first < panel ? columns - first : panel;
    for (int64_t r = 0; r < rows; ++r) {
      float* to = out + r * panel;
      if (width == panel) {
        __builtin_memcpy(to, x + r * row_stride + first, panel * sizeof(float));
      } else {
        __builtin_memcpy(to, x + r * row_stride + first, width * sizeof(float));
        __builtin_memset(to + width, 0, (panel - width) * sizeof(float));
      }
    }
    __builtin_memset(out + rows * panel, 0, (padded_rows - rows) * panel * sizeof(float));
  }
}

// out[c * out_stride + r] = x[r * row_stride + c].
inline void transpose(const float* x, int64_t row_stride, int64_t rows, int64_t columns, float* out,
                      int64_t out_stride) {
  typedef float Four __attribute__((vector_size(16)));
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t r = 0; r < whole_rows; r += 4) {
    for (int64_t c = 0; c < whole_columns; c += 4) {
      Four row[4];
      for (int i = 0; i < 4; ++i) __builtin_memcpy(&row[i], x + (r + i) * row_stride + c, sizeof(Four));
      const Four low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Four low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Four high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Four high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      const Four column[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                              __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                              __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                              __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) __builtin_memcpy(out + (c + i) * out_stride + r, &column[i], sizeof(Four));
    }
    for (int64_t c = whole_columns; c < columns; ++c) {
      for (int i = 0; i < 4; ++i) out[c * out_stride + r + i] = x[(r + i) * row_stride + c];
    }
  }
  for (int64_t r = whole_rows; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[c * out_stride + r] = x[r * row_stride + c];
  }
}

// Packs the transpose of up to `panel` rows as one column panel, with zeros for the rows that are missing.
inline void pack_transposed(const float* x, int64_t row_stride, int64_t rows, int64_t columns, float* out) {
  if (rows < panel) __builtin_memset(out, 0, columns * panel * sizeof(float));
  transpose(x, row_stride, rows, columns, out, panel);
}

// Copies the first `rows` rows of column panels of `padded_rows` rows, times `factor`, to rows `row_stride` apart.
inline void unpack(const float* x, int64_t padded_rows, int64_t rows, int64_t columns, float factor, float* out,
                   int64_t row_stride) {
  for (int64_t first = 0; first < columns; first += panel, x += padded_rows * panel) {
    const int64_t width = columns - first < panel ? columns - first : panel;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) out[r * row_stride + first + c] = factor * x[r * panel + c];
    }
  }
}

}  // namespace uqabench::UQ_ISA
