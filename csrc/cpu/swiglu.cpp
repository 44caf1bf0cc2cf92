#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/swiglu.h"

#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/swiglu.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void swiglu_forward(const SwiGLU& args, float* y) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  const RowTasks tasks(args.rows, args.width);
  parallel_for(tasks.count(), tasks.threads(args.threads), 0, [&](int64_t i, float*) { kernel(args, y, tasks[i]); });
}

void swiglu_backward(const SwiGLU& args, RowView grad, float* dgate, float* dup) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  const RowTasks tasks(args.rows, args.width);
  parallel_for(tasks.count(), tasks.threads(args.threads), 0,
               [&](int64_t i, float*) { kernel(args, grad, dgate, dup, tasks[i]); });
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

inline void forward(const SwiGLU& args, float* y, RowRange range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const float *gate = args.gate.at(row), *up = args.up.at(row);
    float* out = y + row * args.width;
    for_each_vector(args.width, [&](auto get, auto put) {
      const Floats x = get(gate);
      put(out, x * sigmoid(x) * get(up));
    });
  }
}

// With s = sigmoid(gate): dup = grad * gate * s, dgate = grad * up * s * (1 + gate * (1 - s)).
inline void backward(const SwiGLU& args, RowView grads, float* dgate, float* dup, RowRange range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const float *gate = args.gate.at(row), *up = args.up.at(row), *grad = grads.at(row);
    float *to_gate = dgate + row * args.width, *to_up = dup + row * args.width;
    for_each_vector(args.width, [&](auto get, auto put) {
      const Floats x = get(gate), s = sigmoid(x), g = get(grad) * s, silu_rest = x - x * s;
      put(to_up, g * x);
      put(to_gate, multiply_add(g * get(up), silu_rest, g * get(up)));
    });
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
