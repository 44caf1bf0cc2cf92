#pragma once

#include "cpu/rows.h"

namespace uqabench {

// y = gate * sigmoid(gate) * up; outputs are (rows, width), contiguous.
struct SwiGLU {
  RowView gate, up;
  int64_t rows, width;
  int threads;
};

void swiglu_forward(const SwiGLU& args, float* y);
void swiglu_backward(const SwiGLU& args, RowView grad, float* dgate, float* dup);

}  // namespace uqabench
