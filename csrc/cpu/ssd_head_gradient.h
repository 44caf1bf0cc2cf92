// The way back of one head of the Mamba-2 scan through a chunk. No include guard: see simd.h, included before with
// functions.h, gemm.h, ssd_chunk.h, <algorithm> and <vector>.

namespace uqabench::UQ_ISA {
namespace {

// What heads add up, each for itself in each sequence: (sequences, heads).
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

// One head's way back through a sequence, a chunk at a time. Matrices of a chunk are in column panels of `chunk` rows.
class SsdHeadGradient {
 public:
  const SsdChunk& of;
  SsdSteps steps;
  float *before, *state_gradient;  // (states, width): the state before the chunk, the gradient of that after it

  static int64_t scratch(const SsdSizes& s) {
    return 3 * chunk * s.width + s.width * panel + s.state() + chunk * chunk + chunk_slack;
  }

  SsdHeadGradient(const SsdChunk& shared, Arena& arena)
      : of(shared),
        size_(shared.size),
        grad_(arena.take(chunk * size_.width)),
        pulse_(arena.take(chunk * size_.width)),
        d_pulse_(arena.take(chunk * size_.width)),
        grad_transposed_(arena.take(size_.width * panel)),
        turned_(arena.take(size_.state())),
        weights_(arena.take(chunk * chunk)) {}

  // Adds to what the heads share: slopes (the gradient of C B^T, laid out as it is), d_b and d_c.
  void run(const SsdBackward& all, int64_t sequence, int64_t head, float* slopes, float* d_b, float* d_c) {
    const int64_t at = sequence * of.in.heads + head;
    steps.begin(of.in, head, of.token, of.count);
    read_grad(all, head, at);
    pack_scaled(of.in.x, of.token, head, of.count, of.in.width, steps.step, pulse_);
    std::fill_n(d_log_decay_, chunk, 0.0f);
    add_slopes(slopes);
    write_pulse_gradient();
    turn(before);
    add_projected(grad_, steps.from_start, of.c, d_c, d_log_decay_);
    turn(state_gradient);
    std::fill_n(d_to_end_, chunk, 0.0f);
    add_projected(pulse_, steps.to_end, of.b, d_b, d_to_end_);
    const float d_last = steps.last * dot(state_gradient, before, size_.state());
    finish_tokens(all, head, at, d_last);
    pack_rows_times(steps.from_start);
    advance_state(size_, of.in.states, of.count, steps.last, of.c, d_pulse_, state_gradient);
  }

 private:
  const SsdSizes size_;
  float *grad_, *pulse_, *d_pulse_;  // (chunk, width): the gradient of y before its gate; step x; its gradient
  float *grad_transposed_;           // (width, panel)
  float *turned_;                    // a state as (width, states), in column panels of size.width rows
  float *weights_;                   // C B^T times the decays, laid out as C B^T
  float d_log_decay_[chunk], d_to_end_[chunk];

  // The gradient of y without its gate, and of the gate; adds to the gradient of D.
  void read_grad(const SsdBackward& all, int64_t head, int64_t at) {
    const SsdScan& in = of.in;
    std::fill_n(grad_, chunk * size_.width, 0.0f);
    float skip = 0.0f;
    for (int64_t t = 0; t < of.count; ++t) {
      const int64_t token = of.token + t, row = (token * in.heads + head) * in.width;
      const float *g = all.given.grad.at(token, head), *x = in.x.at(token, head);
      for (int64_t p = 0; p < in.width; p += panel) {
        float* out = grad_ + p * chunk + t * panel;
        Floats product = {};
        int64_t lane = 0;
        for_each_vector(std::min<int64_t>(panel, in.width - p), [&](auto get, auto put) {
          Floats grad = get(g + p);
          if (in.z.data) {
            const Floats z = get(in.z.at(token, head) + p), share = sigmoid(z), gate = z * share;
            put(all.to.z + row + p, grad * get(all.given.ungated + row + p) * (share + gate * (1.0f - share)));
            grad *= gate;
          }
          store(out + lane, grad);
          lane += lanes;
          product = multiply_add(grad, get(x + p), product);
        });
        skip += sum_lanes(product);
      }
    }
    all.sums.d[at] += skip;
  }

  void add_slopes(float* slopes) {
    float row_sums[chunk] = {};
    for (int64_t t = 0; t < of.padded(); t += panel) {
      for (int64_t p = 0; p < size_.width; p += panel) {
        transpose(grad_ + p * chunk + t * panel, panel, panel, panel, grad_transposed_ + p * panel, panel);
      }
      for (int64_t s = 0; s < t + panel; s += block) {
        Sums<block> d_weights;
        d_weights.add_panels(of.in.width, pulse_ + s * panel, chunk, grad_transposed_);
        for (int r = 0; r < block; ++r) {
          for (int half = 0; half < 2; ++half) {
            const int64_t lane = t + half * lanes, place = t * chunk + (s + r) * panel + half * lanes;
            const Floats decay = steps.decay(s + r, lane), product = load(of.products + place);
            const Floats slope = d_weights.value[r][half] * decay;
            store(weights_ + place, product * decay);
            store(slopes + place, load(slopes + place) + slope);
            // A token's decay to itself is 1 whatever the steps: its share would come and go, and leave rounding.
            const Floats change = keep(causal(lane, s + r + 1), slope * product);
            store(d_log_decay_ + lane, load(d_log_decay_ + lane) + change);
            row_sums[s + r] += sum_lanes(change);
          }
        }
      }
    }
    for (int64_t t = 0; t < chunk; ++t) d_log_decay_[t] -= row_sums[t];
  }

  void write_pulse_gradient() {
    for (int64_t p = 0; p < size_.width; p += panel) {
      for (int64_t s = 0; s < of.padded(); s += block) {
        Sums<block> sums;
        sums.add_panels(of.in.states, of.b + s * panel, chunk, state_gradient + p * size_.states);
        scale_rows(sums, steps.to_end + s);
        for (int64_t t = s / panel * panel; t < of.padded(); t += panel) {
          sums.add_product(panel, weights_ + t * chunk + s * panel, panel, 1, grad_ + p * chunk + t * panel);
        }
        sums.store_to(d_pulse_ + p * chunk + s * panel);
      }
    }
  }

  void turn(const float* state) {
    for (int64_t n = 0; n < size_.states; n += panel) {
      for (int64_t p = 0; p < size_.width; p += panel) {
        transpose(state + p * size_.states + n * panel, panel, panel, panel, turned_ + n * size_.width + p * panel, panel);
      }
    }
  }

  // into (chunk, states) += factor[t] * left (chunk, width) times the turned state; products[t] += its row times other's.
  void add_projected(const float* left, const float* factor, const float* other, float* into, float* products) const {
    for (int64_t n = 0; n < size_.states; n += panel) {
      for (int64_t t = 0; t < of.padded(); t += block) {
        const int64_t place = n * chunk + t * panel;
        Sums<block> sums;
        sums.add_panels(of.in.width, left + t * panel, chunk, turned_ + n * size_.width);
        scale_rows(sums, factor + t);
        for (int r = 0; r < block; ++r) {
          Floats product = {};
          for (int half = 0; half < 2; ++half) {
            const int64_t i = place + r * panel + half * lanes;
            store(into + i, load(into + i) + sums.value[r][half]);
            product = multiply_add(sums.value[r][half], load(other + i), product);
          }
          products[t + r] += sum_lanes(product);
        }
      }
    }
  }

  // Gradients of x, dt, A and dt_bias.
  void finish_tokens(const SsdBackward& all, int64_t head, int64_t at, float d_last) {
    const SsdScan& in = of.in;
    float later[chunk];  // sums over the tokens from t on
    float sum = 0.0f;
    for (int64_t t = of.count; t-- > 0;) later[t] = sum += d_log_decay_[t];
    float earlier = 0.0f, d_a = 0.0f, d_bias = 0.0f;
    for (int64_t t = 0; t < of.count; ++t) {
      const float d_log = later[t] + d_last + earlier;
      earlier += d_to_end_[t];
      d_a += d_log * steps.step[t];
      float d_step = d_log * in.a[head] + write_x_gradient(all, head, t);
      if (in.softplus) d_step *= sigmoid(broadcast(steps.raw[t]))[0];
      all.to.dt[(of.token + t) * in.heads + head] = d_step;
      d_bias += d_step;
    }
    all.sums.a[at] += d_a;
    all.sums.dt_bias[at] += d_bias;
  }

  // Returns x . d_pulse, the step's gradient through the pulse.
  float write_x_gradient(const SsdBackward& all, int64_t head, int64_t t) const {
    const SsdScan& in = of.in;
    const float skip = in.d ? in.d[head] : 0.0f;
    const float* x = in.x.at(of.token + t, head);
    float* out = all.to.x + ((of.token + t) * in.heads + head) * in.width;
    Floats product = {};
    for (int64_t p = 0; p < in.width; p += panel) {
      const float *d_pulse = d_pulse_ + p * chunk + t * panel, *grad = grad_ + p * chunk + t * panel;
      for_each_vector(std::min<int64_t>(panel, in.width - p), [&](auto get, auto put) {
        const Floats g = get(d_pulse);
        product = multiply_add(g, get(x + p), product);
        put(out + p, multiply_add(broadcast(skip), get(grad), g * steps.step[t]));
      });
    }
    return sum_lanes(product);
  }

  // grad_ with its rows times `factor`, in d_pulse_, which has been used up.
  void pack_rows_times(const float* factor) {
    for (int64_t p = 0; p < size_.width; p += panel) {
      for (int64_t t = 0; t < chunk; ++t) {
        for (int64_t half = 0; half < panel; half += lanes) {
          const int64_t i = p * chunk + t * panel + half;
          store(d_pulse_ + i, load(grad_ + i) * factor[t]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace uqabench::UQ_ISA
