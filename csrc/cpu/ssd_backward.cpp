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
#include "cpu/ssd_head_gradient.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// d_c_t += sum_s d_products_ts b_s and d_b_s += sum_t d_products_ts c_t; then both are written to their rows of the
// task's partial gradients.
inline void write_shared(const SsdBackward& pass, const SsdChunk& shared, const SsdTask& task, const float* d_products,
                         float* d_b, float* d_c) {
  const SsdScan& in = shared.in;
  for (int64_t n = 0; n < shared.size.states; n += panel) {
    for (int64_t i = 0; i < shared.padded(); i += block) {
      const int64_t index = n * chunk + i * panel, t = i / panel * panel;
      Accumulators<block> sums;
      sums.load_from(d_c + index);
      sums.add_product(i + block, d_products + t * chunk + i - t, 1, panel, shared.b + n * chunk);
      sums.store_to(d_c + index);
      sums.load_from(d_b + index);
      for (int64_t later = t; later < shared.padded(); later += panel) {
        sums.add_product(panel, d_products + later * chunk + i * panel, panel, 1, shared.c + n * chunk + later * panel);
      }
      sums.store_to(d_b + index);
    }
  }
  const int64_t row = in.groups * in.states;
  const int64_t at = (task.part * in.tokens() + shared.token) * row + task.group * in.states;
  unpack(d_b, chunk, shared.count, in.states, 1.0f, pass.parts_b + at, row);
  unpack(d_c, chunk, shared.count, in.states, 1.0f, pass.parts_c + at, row);
}

// Recomputes the states of the task's heads before each chunk of the sequence: (chunks, heads_each) states.
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

inline void differentiate_task(const SsdBackward& pass, const SsdTask& task, float* scratch) {
  const SsdScan& in = pass.in;
  Arena arena{scratch};
  SsdChunk shared(in, arena);
  SsdHeadGradient head(shared, arena);
  const SsdSizes& size = shared.size;
  float *d_products = arena.take(chunk * chunk), *d_b = arena.take(chunk * size.states);
  float *d_c = arena.take(chunk * size.states), *x = arena.take(chunk * size.width);
  float* d_states = arena.take(heads_each * size.state());
  float* states = arena.next;
  const int64_t first = (task.sequence * in.heads + task.head) * in.state_size();
  for (int64_t h = 0; h < task.heads; ++h) {
    const float* grad = pass.given.state_grad ? pass.given.state_grad + first + h * in.state_size() : nullptr;
    read_state(in, size, grad, d_states + h * size.state());
  }
  write_states(in, task, shared, x, states);
  const int64_t start = in.offsets[task.sequence], end = in.offsets[task.sequence + 1];
  for (int64_t c = chunks_of(in, task.sequence); c-- > 0;) {
    const int64_t token = start + c * chunk;
    shared.begin(task.group, token, std::min(chunk, end - token));
    std::fill_n(d_products, chunk * chunk, 0.0f);
    std::fill_n(d_b, chunk * size.states, 0.0f);
    std::fill_n(d_c, chunk * size.states, 0.0f);
    for (int64_t h = 0; h < task.heads; ++h) {
      head.before = states + (c * heads_each + h) * size.state();
      head.state_gradient = d_states + h * size.state();
      head.run(pass, task.sequence, task.head + h, d_products, d_b, d_c);
    }
    write_shared(pass, shared, task, d_products, d_b, d_c);
  }
  for (int64_t h = 0; pass.to.initial_state && h < task.heads; ++h) {
    write_state(in, size, d_states + h * size.state(), pass.to.initial_state + first + h * in.state_size());
  }
}

// to (size) = the sum of the `count` parts, added in their order.
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
  int64_t max_chunks = 1;
  for (int64_t b = 0; b < in.sequences; ++b) max_chunks = std::max(max_chunks, chunks_of(in, b));
  const int64_t parts = parts_of(in), part = in.tokens() * in.groups * in.states;
  const Scratch parts_b(parts > 1 ? parts * part : 0), parts_c(parts > 1 ? parts * part : 0);
  SsdSums sums(in.sequences * in.heads);
  const SsdBackward pass{in, given, to, sums, parts > 1 ? parts_b.get() : to.b, parts > 1 ? parts_c.get() : to.c};
  const int64_t scratch = SsdChunk::scratch(size) + SsdHeadGradient::scratch(size) + chunk * chunk +
                          2 * chunk * size.states + chunk * size.width + (max_chunks + 1) * heads_each * size.state() +
                          chunk_slack;
  parallel_for(ssd_tasks(in), in.threads, scratch,
               [&](int64_t i, float* memory) { differentiate_task(pass, ssd_task(in, i), memory); });
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
