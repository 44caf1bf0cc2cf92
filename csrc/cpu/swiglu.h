#pragma once

#include "cpu/bf16.h"
#include "cpu/rows.h"

namespace uqabench {

// y = gate * sigmoid(gate) * up. The outputs (rows, width) are contiguous. T: float or Bf16.
template <class T>
struct SwiGLU {
  RowView<T> gate, up;
  int64_t rows, width;
  int threads;
};

template <class T>
void swiglu_forward(const SwiGLU<T>& args, T* y);
template <class T>
void swiglu_backward(const SwiGLU<T>& args, RowView<T> grad, T* dgate, T* dup);

}  // namespace uqabench
