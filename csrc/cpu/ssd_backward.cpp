#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/ssd_scan.h"

#define UQ_SOURCE "cpu/ssd_backward.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void ssd_scan_backward(const SsdScan& args, const SsdGiven& given, const SsdGradients& gradients) {
  static constexpr decltype(&baseline::scan_backward) kernel[] = UQ_TABLE(scan_backward);
  kernel[static_cast<int>(current_isa())](args, given, gradients);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
#include "cpu/gemm.h"
#include "cpu/ssd_chunk.h"
// clang-format on

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

  SsdHeadGradient(const SsdChunk& shared, Pieces& pieces)
      : of(shared),
        size_(shared.size),
        grad_(pieces.take(chunk * size_.width)),
        pulse_(pieces.take(chunk * size_.width)),
        d_pulse_(pieces.take(chunk * size_.width)),
        grad_transposed_(pieces.take(size_.width * panel)),
        turned_(pieces.take(size_.state())),
        weights_(pieces.take(chunk * chunk)) {}

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
            const Floats change = keep_later(s + r, lane, slope * product);
            store(d_log_decay_ + lane, load(d_log_decay_ + lane) + change);
            row_sums[s + r] += sum_lanes(change);
          }
        }
      }
    }
    for (int64_t t = 0; t < chunk; ++t) d_log_decay_[t] -= row_sums[t];
  }

  UQ_INLINE static Floats keep_later(int64_t s, int64_t t, Floats x) {
    Ints lane;
    for (int i = 0; i < lanes; ++i) lane[i] = i;
    return keep(lane > static_cast<int32_t>(std::max<int64_t>(s - t, -1)), x);
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

// d_c_t += sum_s slope_ts b_s and d_b_s += sum_t slope_ts c_t, then both to their rows of the task's part.
inline void write_shared(const SsdBackward& all, const SsdChunk& of, const SsdTask& task, const float* slopes, float* d_b,
                         float* d_c) {
  const SsdScan& in = of.in;
  for (int64_t n = 0; n < of.size.states; n += panel) {
    for (int64_t i = 0; i < of.padded(); i += block) {
      const int64_t place = n * chunk + i * panel, t = i / panel * panel;
      Sums<block> sums;
      sums.load_from(d_c + place);
      sums.add_product(i + block, slopes + t * chunk + i - t, 1, panel, of.b + n * chunk);
      sums.store_to(d_c + place);
      sums.load_from(d_b + place);
      for (int64_t later = t; later < of.padded(); later += panel) {
        sums.add_product(panel, slopes + later * chunk + i * panel, panel, 1, of.c + n * chunk + later * panel);
      }
      sums.store_to(d_b + place);
    }
  }
  const int64_t row = in.groups * in.states, at = (task.part * in.tokens() + of.token) * row + task.group * in.states;
  unpack(d_b, chunk, of.count, in.states, 1.0f, all.parts_b + at, row);
  unpack(d_c, chunk, of.count, in.states, 1.0f, all.parts_c + at, row);
}

// The states of the task's heads before each chunk of the sequence: (chunks, heads_each), computed again.
inline void write_states(const SsdScan& in, const SsdTask& task, SsdChunk& shared, float* x, float* states) {
  const SsdSizes& size = shared.size;
  const int64_t start = in.offsets[task.sequence], length = in.offsets[task.sequence + 1] - start;
  for (int64_t h = 0; h < task.heads; ++h) {
    const int64_t head = task.head + h, at = (task.sequence * in.heads + head) * in.state_size();
    float* state = states + h * size.state();
    read_state(in, size, in.initial_state ? in.initial_state + at : nullptr, state);
    for (int64_t done = 0; done + chunk < length; done += chunk) {
      float* next = state + heads_each * size.state();
      std::copy_n(state, size.state(), next);
      state = next;
      SsdSteps steps;
      steps.begin(in, head, start + done, chunk);
      float weight[chunk];
      for (int64_t t = 0; t < chunk; ++t) weight[t] = steps.to_end[t] * steps.step[t];
      pack(in.b.at(start + done, task.group), in.b.token_stride, chunk, in.states, chunk, shared.b);
      pack_scaled(in.x, start + done, head, chunk, in.width, weight, x);
      advance_state(size, in.states, chunk, steps.last, shared.b, x, state);
    }
  }
}

inline int64_t chunks_of(const SsdScan& in, int64_t sequence) {
  return (in.offsets[sequence + 1] - in.offsets[sequence] + chunk - 1) / chunk;
}

inline void differentiate_task(const SsdBackward& all, const SsdTask& task, float* scratch) {
  const SsdScan& in = all.in;
  Pieces pieces{scratch};
  SsdChunk shared(in, pieces);
  SsdHeadGradient head(shared, pieces);
  const SsdSizes& size = shared.size;
  float *slopes = pieces.take(chunk * chunk), *d_b = pieces.take(chunk * size.states);
  float *d_c = pieces.take(chunk * size.states), *x = pieces.take(chunk * size.width);
  float* d_states = pieces.take(heads_each * size.state());
  float* states = pieces.next;
  const int64_t first = (task.sequence * in.heads + task.head) * in.state_size();
  for (int64_t h = 0; h < task.heads; ++h) {
    const float* grad = all.given.state_grad ? all.given.state_grad + first + h * in.state_size() : nullptr;
    read_state(in, size, grad, d_states + h * size.state());
  }
  write_states(in, task, shared, x, states);
  const int64_t start = in.offsets[task.sequence], end = in.offsets[task.sequence + 1];
  for (int64_t c = chunks_of(in, task.sequence); c-- > 0;) {
    const int64_t token = start + c * chunk;
    shared.begin(task.group, token, std::min(chunk, end - token));
    std::fill_n(slopes, chunk * chunk, 0.0f);
    std::fill_n(d_b, chunk * size.states, 0.0f);
    std::fill_n(d_c, chunk * size.states, 0.0f);
    for (int64_t h = 0; h < task.heads; ++h) {
      head.before = states + (c * heads_each + h) * size.state();
      head.state_gradient = d_states + h * size.state();
      head.run(all, task.sequence, task.head + h, slopes, d_b, d_c);
    }
    write_shared(all, shared, task, slopes, d_b, d_c);
  }
  for (int64_t h = 0; all.to.initial_state && h < task.heads; ++h) {
    write_state(in, size, d_states + h * size.state(), all.to.initial_state + first + h * in.state_size());
  }
}

// to (size) = the parts added in their order.
inline void add_parts(const float* parts, int64_t count, int64_t size, int threads, float* to) {
  constexpr int64_t slice = 1 << 14;
  parallel_for((size + slice - 1) / slice, threads, 0, [&](int64_t i, float*) {
    const int64_t begin = i * slice, end = std::min(size, begin + slice);
    std::copy(parts + begin, parts + end, to + begin);
    for (int64_t part = 1; part < count; ++part) {
      for (int64_t j = begin; j < end; ++j) to[j] += parts[part * size + j];
    }
  });
}

inline void add_sequences(const SsdScan& in, const std::vector<float>& sums, float* to) {
  for (int64_t h = 0; to && h < in.heads; ++h) {
    to[h] = 0.0f;
    for (int64_t b = 0; b < in.sequences; ++b) to[h] += sums[b * in.heads + h];
  }
}

inline void scan_backward(const SsdScan& in, const SsdGiven& given, const SsdGradients& to) {
  const SsdSizes size(in);
  int64_t most_chunks = 1;
  for (int64_t b = 0; b < in.sequences; ++b) most_chunks = std::max(most_chunks, chunks_of(in, b));
  const int64_t parts = parts_of(in), part = in.tokens() * in.groups * in.states;
  const Scratch parts_b(parts > 1 ? parts * part : 0), parts_c(parts > 1 ? parts * part : 0);
  SsdSums sums(in.sequences * in.heads);
  const SsdBackward all{in, given, to, sums, parts > 1 ? parts_b.get() : to.b, parts > 1 ? parts_c.get() : to.c};
  const int64_t scratch = SsdChunk::scratch(size) + SsdHeadGradient::scratch(size) + chunk * chunk +
                          2 * chunk * size.states + chunk * size.width + (most_chunks + 1) * heads_each * size.state() +
                          chunk_slack;
  parallel_for(ssd_tasks(in), in.threads, scratch,
               [&](int64_t i, float* memory) { differentiate_task(all, ssd_task(in, i), memory); });
  if (parts > 1) {
    add_parts(parts_b.get(), parts, part, in.threads, to.b);
    add_parts(parts_c.get(), parts, part, in.threads, to.c);
  }
  add_sequences(in, sums.a, to.a);
  add_sequences(in, sums.d, to.d);
  add_sequences(in, sums.dt_bias, to.dt_bias);
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
