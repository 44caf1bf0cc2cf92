// The backward pass of one head of the Mamba-2 scan through a chunk. Included after simd.h, functions.h, gemm.h,
// ssd_chunk.h, <algorithm> and <vector>, once for each instruction set.

namespace uqabench::UQ_ISA {
namespace {

// Accumulators of the parameters' gradients, one for each head in each sequence: (sequences, heads).
struct SsdSums {
  std::vector<float> a, d, dt_bias;

  explicit SsdSums(size_t size) : a(size), d(size), dt_bias(size) {}
};

struct SsdBackward {
  const SsdScan& in;
  const SsdGiven& given;
  const SsdGradients& to;
  SsdSums& sums;
  float *parts_b, *parts_c;  // (parts, tokens, groups, states)
};

// The backward pass of one head through a sequence, a chunk at a time, from the last to the first. Matrices of a chunk
// are in column panels of `chunk` rows.
class SsdHeadGradient {
 public:
  const SsdChunk& shared;
  SsdSteps steps;
  float *before, *state_gradient;  // (states, width): the state before the chunk, and the gradient of the one after it

  static int64_t scratch(const SsdSizes& s) {
    return 3 * chunk * s.width + s.width * panel + s.state() + chunk * chunk + chunk_slack;
  }

  SsdHeadGradient(const SsdChunk& shared, Arena& arena)
      : shared(shared),
        size_(shared.size),
        grad_(arena.take(chunk * size_.width)),
        dt_x_(arena.take(chunk * size_.width)),
        d_dt_x_(arena.take(chunk * size_.width)),
        grad_transposed_(arena.take(size_.width * panel)),
        transposed_state_(arena.take(size_.state())),
        weights_(arena.take(chunk * chunk)) {}

  // Adds to the accumulators that the heads of a task share: d_products, the gradient of C B^T in its layout, d_b and
  // d_c.
  void run(const SsdBackward& pass, int64_t sequence, int64_t head, float* d_products, float* d_b, float* d_c) {
    const int64_t at = sequence * shared.in.heads + head;
    steps.begin(shared.in, head, shared.token, shared.count);
    read_grad(pass, head, at);
    pack_scaled(shared.in.x, shared.token, head, shared.count, shared.in.width, steps.step, dt_x_);
    std::fill_n(d_log_decay_, chunk, 0.0f);
    add_product_gradients(d_products);
    write_dt_x_gradient();
    transpose_state(before);
    add_projected(grad_, steps.from_start, shared.c, d_c, d_log_decay_);
    transpose_state(state_gradient);
    std::fill_n(d_to_end_, chunk, 0.0f);
    add_projected(dt_x_, steps.to_end, shared.b, d_b, d_to_end_);
    const float d_last = steps.last * dot(state_gradient, before, size_.state());
    finish_tokens(pass, head, at, d_last);
    pack_rows_times(steps.from_start);
    advance_state(size_, shared.in.states, shared.count, steps.last, shared.c, d_dt_x_, state_gradient);
  }

 private:
  const SsdSizes size_;
  float *grad_, *dt_x_, *d_dt_x_;  // (chunk, width): the gradient of y before its gate; step x; its gradient
  float* grad_transposed_;         // (width, panel)
  float* transposed_state_;        // a state as (width, states), in column panels of size.width rows
  float* weights_;                 // C B^T times the decays, in the layout of C B^T
  float d_log_decay_[chunk], d_to_end_[chunk];

  // Computes the gradients of y before its gate and of the gate, and adds to the gradient of D.
  void read_grad(const SsdBackward& pass, int64_t head, int64_t at) {
    const SsdScan& in = shared.in;
    std::fill_n(grad_, chunk * size_.width, 0.0f);
    float skip = 0.0f;
    for (int64_t t = 0; t < shared.count; ++t) {
      const int64_t token = shared.token + t, row = (token * in.heads + head) * in.width;
      const float *g = pass.given.grad.at(token, head), *x = in.x.at(token, head);
      for (int64_t p = 0; p < in.width; p += panel) {
        float* out = grad_ + p * chunk + t * panel;
        Floats product = {};
        int64_t lane = 0;
        for_each_vector(std::min<int64_t>(panel, in.width - p), [&](auto get, auto put) {
          Floats grad = get(g + p);
          if (in.z.data) {
            const Floats z = get(in.z.at(token, head) + p), share = sigmoid(z), gate = z * share;
            put(pass.to.z + row + p, grad * get(pass.given.ungated + row + p) * (share + gate * (1.0f - share)));
            grad *= gate;
          }
          store(out + lane, grad);
          lane += lanes;
          product = multiply_add(grad, get(x + p), product);
        });
        skip += sum_lanes(product);
      }
    }
    pass.sums.d[at] += skip;
  }

  void add_product_gradients(float* d_products) {
    float row_sums[chunk] = {};
    for (int64_t t = 0; t < shared.padded(); t += panel) {
      for (int64_t p = 0; p < size_.width; p += panel) {
        transpose(grad_ + p * chunk + t * panel, panel, panel, panel, grad_transposed_ + p * panel, panel);
      }
      for (int64_t s = 0; s < t + panel; s += block) {
        Accumulators<block> d_weights;
        d_weights.add_panels(shared.in.width, dt_x_ + s * panel, chunk, grad_transposed_);
        for (int r = 0; r < block; ++r) {
          for (int half = 0; half < 2; ++half) {
            const int64_t lane = t + half * lanes, index = t * chunk + (s + r) * panel + half * lanes;
            const Floats decay = steps.decay(s + r, lane), product = load(shared.products + index);
            const Floats d_product = d_weights.value[r][half] * decay;
            store(weights_ + index, product * decay);
            store(d_products + index, load(d_products + index) + d_product);
            // A token's decay to itself is always 1: its contribution would be added and subtracted again, and leave a
            // rounding error.
            const Floats change = keep(causal(lane, s + r + 1), d_product * product);
            store(d_log_decay_ + lane, load(d_log_decay_ + lane) + change);
            row_sums[s + r] += sum_lanes(change);
          }
        }
      }
    }
    for (int64_t t = 0; t < chunk; ++t) d_log_decay_[t] -= row_sums[t];
  }

  void write_dt_x_gradient() {
    for (int64_t p = 0; p < size_.width; p += panel) {
      for (int64_t s = 0; s < shared.padded(); s += block) {
        Accumulators<block> sums;
        sums.add_panels(shared.in.states, shared.b + s * panel, chunk, state_gradient + p * size_.states);
        scale_rows(sums, steps.to_end + s);
        for (int64_t t = s / panel * panel; t < shared.padded(); t += panel) {
          sums.add_product(panel, weights_ + t * chunk + s * panel, panel, 1, grad_ + p * chunk + t * panel);
        }
        sums.store_to(d_dt_x_ + p * chunk + s * panel);
      }
    }
  }

  void transpose_state(const float* state) {
    for (int64_t n = 0; n < size_.states; n += panel) {
      for (int64_t p = 0; p < size_.width; p += panel) {
        transpose(state + p * size_.states + n * panel, panel, panel, panel,
                  transposed_state_ + n * size_.width + p * panel, panel);
      }
    }
  }

  // Adds row t of left (chunk, width) times transposed_state_, times factor[t], to row t of `into` (chunk, states),
  // and the dot product of that row with row t of `other` to products[t].
  void add_projected(const float* left, const float* factor, const float* other, float* into, float* products) const {
    for (int64_t n = 0; n < size_.states; n += panel) {
      for (int64_t t = 0; t < shared.padded(); t += block) {
        const int64_t index = n * chunk + t * panel;
        Accumulators<block> sums;
        sums.add_panels(shared.in.width, left + t * panel, chunk, transposed_state_ + n * size_.width);
        scale_rows(sums, factor + t);
        for (int r = 0; r < block; ++r) {
          Floats product = {};
          for (int half = 0; half < 2; ++half) {
            const int64_t i = index + r * panel + half * lanes;
            store(into + i, load(into + i) + sums.value[r][half]);
            product = multiply_add(sums.value[r][half], load(other + i), product);
          }
          products[t + r] += sum_lanes(product);
        }
      }
    }
  }

  // Computes the gradients of x and dt, and adds to those of A and dt_bias.
  void finish_tokens(const SsdBackward& pass, int64_t head, int64_t at, float d_last) {
    const SsdScan& in = shared.in;
    float later[chunk];  // the sum of d_log_decay_ over the tokens from t on
    float sum = 0.0f;
    for (int64_t t = shared.count; t-- > 0;) later[t] = sum += d_log_decay_[t];
    float earlier = 0.0f, d_a = 0.0f, d_bias = 0.0f;
    for (int64_t t = 0; t < shared.count; ++t) {
      const float d_log = later[t] + d_last + earlier;
      earlier += d_to_end_[t];
      d_a += d_log * steps.step[t];
      float d_step = d_log * in.a[head] + write_x_gradient(pass, head, t);
      if (in.softplus) d_step *= sigmoid(broadcast(steps.raw[t]))[0];
      pass.to.dt[(shared.token + t) * in.heads + head] = d_step;
      d_bias += d_step;
    }
    pass.sums.a[at] += d_a;
    pass.sums.dt_bias[at] += d_bias;
  }

  // Writes the gradient of x; returns x . d_dt_x, the gradient of the step through step x.
  float write_x_gradient(const SsdBackward& pass, int64_t head, int64_t t) const {
    const SsdScan& in = shared.in;
    const float skip = in.d ? in.d[head] : 0.0f;
    const float* x = in.x.at(shared.token + t, head);
    float* out = pass.to.x + ((shared.token + t) * in.heads + head) * in.width;
    Floats product = {};
    for (int64_t p = 0; p < in.width; p += panel) {
      const float *d_dt_x = d_dt_x_ + p * chunk + t * panel, *grad = grad_ + p * chunk + t * panel;
      for_each_vector(std::min<int64_t>(panel, in.width - p), [&](auto get, auto put) {
        const Floats g = get(d_dt_x);
        product = multiply_add(g, get(x + p), product);
        put(out + p, multiply_add(broadcast(skip), get(grad), g * steps.step[t]));
      });
    }
    return sum_lanes(product);
  }

  // Writes grad_ with row t times factor[t] to d_dt_x_, whose values are no longer needed.
  void pack_rows_times(const float* factor) {
    for (int64_t p = 0; p < size_.width; p += panel) {
      for (int64_t t = 0; t < chunk; ++t) {
        for (int64_t half = 0; half < panel; half += lanes) {
          const int64_t i = p * chunk + t * panel + half;
          store(d_dt_x_ + i, load(grad_ + i) * factor[t]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace uqabench::UQ_ISA
