#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/swiglu.h"

#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/swiglu.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

template <class T>
void swiglu_forward(const SwiGLU<T>& args, T* y) {
  static constexpr decltype(&baseline::forward<T>) kernels[] = UQ_TABLE(forward<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  const RowTasks tasks(args.rows, args.width);
  parallel_for(tasks.count(), tasks.threads(args.threads), 0, [&](int64_t i, float*) { kernel(args, y, tasks[i]); });
}

template <class T>
void swiglu_backward(const SwiGLU<T>& args, RowView<T> grad, T* dgate, T* dup) {
  static constexpr decltype(&baseline::backward<T>) kernels[] = UQ_TABLE(backward<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  const RowTasks tasks(args.rows, args.width);
  parallel_for(tasks.count(), tasks.threads(args.threads), 0,
               [&](int64_t i, float*) { kernel(args, grad, dgate, dup, tasks[i]); });
}

template void swiglu_forward(const SwiGLU<float>&, float*);
template void swiglu_forward(const SwiGLU<Bf16>&, Bf16*);
template void swiglu_backward(const SwiGLU<float>&, RowView<float>, float*, float*);
template void swiglu_backward(const SwiGLU<Bf16>&, RowView<Bf16>, Bf16*, Bf16*);

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

template <class T>
void forward(const SwiGLU<T>& args, T* y, RowRange range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T *gate = args.gate.at(row), *up = args.up.at(row);
    T* out = y + row * args.width;
    for_each_vector(args.width, [&](auto get, auto put) {
      const Floats x = get(gate);
      put(out, x * sigmoid(x) * get(up));
    });
  }
}

// With s = sigmoid(gate): dup = grad * gate * s, dgate = grad * up * s * (1 + gate * (1 - s)).
template <class T>
void backward(const SwiGLU<T>& args, RowView<T> grads, T* dgate, T* dup, RowRange range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T *gate = args.gate.at(row), *up = args.up.at(row), *grad = grads.at(row);
    T *to_gate = dgate + row * args.width, *to_up = dup + row * args.width;
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
