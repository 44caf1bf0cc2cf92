// A chunk of one sequence for some heads of one group, as both passes of the Mamba-2 scan need it. Included after
// simd.h, functions.h, gemm.h and <algorithm>, once for each instruction set.
//
// Within a chunk y = (C B^T * decay) (step x), which resembles masked attention; from chunk to chunk only the state is
// passed on (Dao and Gu 2024, section 6). A head's state is held as (states, width), so that lanes run over `width`.

namespace uqabench::UQ_ISA {
namespace {

constexpr int64_t chunk = 64;           // tokens
constexpr int64_t heads_each = 4;      // heads of a task, which share C B^T
constexpr int64_t chunk_slack = 1024;  // floats that cover the rounding of all pieces of a task's scratch

static_assert(chunk % panel == 0);

// Some heads of one group in one sequence.
struct SsdTask {
  int64_t sequence, group, head, heads;
  int64_t part;  // its index among the tasks of its group
};

inline int64_t parts_of(const SsdScan& in) { return (in.heads / in.groups + heads_each - 1) / heads_each; }

// Task i of all tasks, in the order sequence, group, part.
inline SsdTask ssd_task(const SsdScan& in, int64_t i) {
  const int64_t parts = parts_of(in), each = in.heads / in.groups;
  SsdTask task{i / (in.groups * parts), i / parts % in.groups, 0, 0, i % parts};
  task.head = task.group * each + task.part * heads_each;
  task.heads = std::min(heads_each, each - task.part * heads_each);
  return task;
}

inline int64_t ssd_tasks(const SsdScan& in) { return in.sequences * in.groups * parts_of(in); }

struct SsdSizes {
  int64_t width, states;  // padded to whole panels

  explicit SsdSizes(const SsdScan& in) : width(round_up(in.width, panel)), states(round_up(in.states, panel)) {}
  int64_t state() const { return width * states; }
};

// What the heads of a task share: B and C, and C B^T.
struct SsdChunk {
  const SsdScan& in;
  const SsdSizes size;
  float *b, *c;      // (chunk, states), in column panels of `chunk` rows
  float* products;    // c_t . b_s in panels of t, each (s of the chunk, t of the panel)
  float* transposed;  // a panel of c, transposed
  int64_t token = 0, count = 0;

  static int64_t scratch(const SsdSizes& s) { return 2 * chunk * s.states + chunk * chunk + s.states * panel; }

  SsdChunk(const SsdScan& args, Arena& arena)
      : in(args),
        size(args),
        b(arena.take(chunk * size.states)),
        c(arena.take(chunk * size.states)),
        products(arena.take(chunk * chunk)),
        transposed(arena.take(size.states * panel)) {}

  int64_t padded() const { return round_up(count, panel); }

  void begin(int64_t group, int64_t first_token, int64_t tokens) {
    token = first_token;
    count = tokens;
    pack(in.b.at(token, group), in.b.token_stride, count, in.states, chunk, b);
    pack(in.c.at(token, group), in.c.token_stride, count, in.states, chunk, c);
    for (int64_t t = 0; t < padded(); t += panel) {
      pack_transposed(in.c.at(token + t, group), in.c.token_stride, std::min<int64_t>(panel, count - t), in.states,
                      transposed);
      for (int64_t s = 0; s < t + panel; s += block) {
        Accumulators<block> sums;
        sums.add_panels(in.states, b + s * panel, chunk, transposed);
        sums.store_to(products + (t / panel * chunk + s) * panel);
      }
    }
  }
};

// The step sizes of one head in a chunk, and its decays.
struct SsdSteps {
  float raw[chunk], step[chunk];           // before and after the softplus
  float log_decay[chunk];                  // logarithm of the decay from the chunk's start to the token, inclusive
  float to_end[chunk], from_start[chunk];  // decays from the token to the chunk's end, and from its start to the token
  float last;                              // decay over the whole chunk

  void begin(const SsdScan& in, int64_t head, int64_t token, int64_t count) {
    const float bias = in.dt_bias ? in.dt_bias[head] : 0.0f;
    for (int64_t t = 0; t < chunk; ++t) raw[t] = t < count ? in.dt[(token + t) * in.dt_stride + head] + bias : 0.0f;
    for (int64_t t = 0; t < chunk; t += lanes) store(step + t, in.softplus ? softplus(load(raw + t)) : load(raw + t));
    std::fill(step + count, step + chunk, 0.0f);
    float sum = 0.0f;
    for (int64_t t = 0; t < chunk; ++t) log_decay[t] = sum += step[t] * in.a[head];
    for (int64_t t = 0; t < chunk; t += lanes) {
      store(to_end + t, exponential(sum - load(log_decay + t)));
      store(from_start + t, exponential(load(log_decay + t)));
    }
    last = from_start[chunk - 1];
  }

  // The decays from token s to the tokens [t, t + lanes); 0 for tokens before s.
  UQ_INLINE Floats decay(int64_t s, int64_t t) const {
    return keep(causal(t, s), exponential(load(log_decay + t) - log_decay[s]));
  }
};

// Packs `count` rows of x from `token` on, row t times factor[t], in column panels of `chunk` rows.
inline void pack_scaled(const HeadView& x, int64_t token, int64_t head, int64_t count, int64_t width,
                        const float* factor, float* out) {
  pack(x.at(token, head), x.token_stride, count, width, chunk, out);
  for (int64_t column = 0; column < width; column += panel, out += chunk * panel) {
    for (int64_t t = 0; t < count; ++t) {
      store(out + t * panel, load(out + t * panel) * factor[t]);
      store(out + t * panel + lanes, load(out + t * panel + lanes) * factor[t]);
    }
  }
}

template <int Rows>
UQ_INLINE void scale_rows(Accumulators<Rows>& sums, const float* factor) {
  for (int r = 0; r < Rows; ++r) {
    sums.value[r][0] *= factor[r];
    sums.value[r][1] *= factor[r];
  }
}

// state (states, width) = kept * state + left^T right, with left (chunk, states) and right (chunk, width), all in
// column panels.
inline void advance_state(const SsdSizes& size, int64_t states, int64_t count, float kept, const float* left,
                          const float* right, float* state) {
  for (int64_t p = 0; p < size.width; p += panel) {
    for (int64_t n = 0; n < states; n += block) {
      float* at = state + p * size.states + n * panel;
      Accumulators<block> sums;
      sums.load_from(at);
      for (int r = 0; r < block; ++r) {
        sums.value[r][0] *= kept;
        sums.value[r][1] *= kept;
      }
      sums.add_product(count, left + n / panel * chunk * panel + n % panel, 1, panel, right + p * chunk);
      sums.store_to(at);
    }
  }
}

// Reads a head's state (width, states), or zeros if null, as (states, width) in column panels of size.states rows.
inline void read_state(const SsdScan& in, const SsdSizes& size, const float* x, float* state) {
  std::fill_n(state, size.state(), 0.0f);
  if (!x) return;
  for (int64_t p = 0; p < in.width; p += panel) {
    transpose(x + p * in.states, in.states, std::min<int64_t>(panel, in.width - p), in.states, state + p * size.states,
              panel);
  }
}

inline void write_state(const SsdScan& in, const SsdSizes& size, const float* state, float* to) {
  for (int64_t p = 0; p < in.width; p += panel) {
    transpose(state + p * size.states, panel, in.states, std::min<int64_t>(panel, in.width - p), to + p * in.states,
              in.states);
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
