#pragma once

#include "cpu/bf16.h"
#include "cpu/rows.h"

namespace uqabench {

// For each row: y = (s - mean) * rstd * factor + bias with s = x + residual and
// rstd = 1 / sqrt(mean((s - mean)^2) + eps). A norm that is not centred takes the mean for 0. What is absent among
// residual, factor and bias counts as 0, 1 and 0. The factor is the weight, the same for every row, or a gate, one row
// each. T: float or Bf16.
template <class T>
struct Norm {
  RowView<T> x, residual, factor;
  const T* bias;
  int64_t rows, width;
  float eps;
  int threads;
};

// y and sum (rows, width), contiguous, the sum with a residual only; mean (without: not centred) and rstd (rows).
template <class T>
struct NormResult {
  T *y, *sum;
  float *mean, *rstd;
};

template <class T>
void norm_forward(const Norm<T>& norm, const NormResult<T>& result);

// x is the s of the forward pass, `grad_sum` the gradient that reaches it beside y's (or absent).
template <class T>
struct NormBackward {
  RowView<T> grad, grad_sum, x, factor;
  const float *mean, *rstd;
  int64_t rows, width;
  int threads;
};

// dx and dgate (rows, width); dweight and dbias (width), the gradients summed over the rows. All but dx may be null; a
// factor has either dgate or dweight.
template <class T>
struct NormGradients {
  T *dx, *dgate, *dweight, *dbias;
};

template <class T>
void norm_backward(const NormBackward<T>& norm, const NormGradients<T>& gradients);

}  // namespace uqabench
