#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include <algorithm>

#include "cpu/parallel.h"
#include "cpu/ssd_scan.h"

#define UQ_SOURCE "cpu/ssd_forward.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void ssd_scan_forward(const SsdScan& args, float* y, float* ungated, float* state) {
  static constexpr decltype(&baseline::scan_forward) kernel[] = UQ_TABLE(scan_forward);
  kernel[static_cast<int>(current_isa())](args, y, ungated, state);
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

// The forward pass of one head over a sequence.
struct SsdHead {
  const SsdChunk& shared;
  float *state, *x, *weights, *result;
  SsdSteps steps;

  static int64_t scratch(const SsdSizes& s) { return 3 * chunk * s.width + chunk * chunk; }

  // Computes `result` (chunk, width) in column panels: what the state and the chunk's tokens contribute to y.
  void write_outputs() {
    for (int64_t t = 0; t < shared.padded(); t += panel) {
      write_weights(t);
      for (int64_t p = 0; p < shared.size.width; p += panel) {
        for (int64_t i = t; i < t + panel; i += block) {
          Accumulators<block> sums;
          sums.add_panels(shared.in.states, shared.c + i * panel, chunk, state + p * shared.size.states);
          scale_rows(sums, steps.from_start + i);
          sums.add_product(i + block, weights + i - t, 1, panel, x + p * chunk);
          sums.store_to(result + p * chunk + i * panel);
        }
      }
    }
  }

 private:
  // The weights of tokens s in the outputs of the panel of tokens at t: (s, panel).
  void write_weights(int64_t t) {
    const float* products = shared.products + t * chunk;
    for (int64_t s = 0; s < t + panel; ++s) {
      for (int64_t half = 0; half < panel; half += lanes) {
        store(weights + s * panel + half, load(products + s * panel + half) * steps.decay(s, t + half) * steps.step[s]);
      }
    }
  }
};

// Writes y of one head in the chunk from `result`: adds D x, then multiplies by the gate.
inline void write_rows(const SsdChunk& shared, int64_t head, const float* result, float* y, float* ungated) {
  const SsdScan& in = shared.in;
  const float skip = in.d ? in.d[head] : 0.0f;
  for (int64_t t = 0; t < shared.count; ++t) {
    const int64_t token = shared.token + t, row = (token * in.heads + head) * in.width;
    const float *x = in.x.at(token, head), *z = in.z.data ? in.z.at(token, head) : nullptr;
    for (int64_t p = 0; p < in.width; p += panel) {
      const float* from = result + p * chunk + t * panel;
      for_each_vector(std::min<int64_t>(panel, in.width - p), [&](auto get, auto put) {
        Floats sum = get(from);
        if (in.d) sum = multiply_add(broadcast(skip), get(x + p), sum);
        if (ungated) put(ungated + row + p, sum);
        if (z) {
          const Floats gate = get(z + p);
          sum = sum * gate * sigmoid(gate);
        }
        put(y + row + p, sum);
      });
    }
  }
}

inline void scan_task(const SsdScan& in, const SsdTask& task, float* y, float* ungated, float* final_state,
                      float* scratch) {
  Arena arena{scratch};
  SsdChunk shared(in, arena);
  const SsdSizes& size = shared.size;
  float* states = arena.take(heads_each * size.state());
  SsdHead head{shared, nullptr, arena.take(chunk * size.width), arena.take(chunk * panel),
               arena.take(chunk * size.width), {}};
  const int64_t first_state = task.sequence * in.heads + task.head;
  for (int64_t h = 0; h < task.heads; ++h) {
    const float* initial = in.initial_state ? in.initial_state + (first_state + h) * in.state_size() : nullptr;
    read_state(in, size, initial, states + h * size.state());
  }
  const int64_t end = in.offsets[task.sequence + 1];
  for (int64_t token = in.offsets[task.sequence]; token < end; token += chunk) {
    const int64_t count = std::min(chunk, end - token);
    shared.begin(task.group, token, count);
    for (int64_t h = 0; h < task.heads; ++h) {
      const int64_t head_index = task.head + h;
      head.state = states + h * size.state();
      head.steps.begin(in, head_index, token, count);
      pack(in.x.at(token, head_index), in.x.token_stride, count, in.width, chunk, head.x);
      head.write_outputs();
      write_rows(shared, head_index, head.result, y, ungated);
      float weight[chunk];
      for (int64_t t = 0; t < chunk; ++t) weight[t] = head.steps.to_end[t] * head.steps.step[t];
      pack_scaled(in.x, token, head_index, count, in.width, weight, head.x);
      advance_state(size, in.states, count, head.steps.last, shared.b, head.x, head.state);
    }
  }
  for (int64_t h = 0; final_state && h < task.heads; ++h) {
    write_state(in, size, states + h * size.state(), final_state + (first_state + h) * in.state_size());
  }
}

inline void scan_forward(const SsdScan& in, float* y, float* ungated, float* state) {
  const SsdSizes size(in);
  const int64_t scratch = SsdChunk::scratch(size) + SsdHead::scratch(size) + heads_each * size.state() + chunk_slack;
  parallel_for(ssd_tasks(in), in.threads, scratch,
               [&](int64_t i, float* memory) { scan_task(in, ssd_task(in, i), y, ungated, state, memory); });
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
