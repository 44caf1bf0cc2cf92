#pragma once

#include "cpu/bf16.h"
#include "cpu/rows.h"

namespace uqabench {

// For each row: y = (s - mean) * rstd * factor + bias with s = x + residual and rstd = 1 / sqrt(mean((s - mean)^2) +
// eps). A norm that is not centred takes 0 for the mean. An absent residual, factor or bias counts as 0, 1 or 0. The
// factor is the weight, one row for all, or a gate with a row of its own for each row. T: float or Bf16.
template <class T>
struct Norm {
  RowView<T> x, residual, factor;
  const T* bias;
  int64_t rows, width;
  float eps;
  int threads;
};

// y and sum (rows, width), contiguous, where `sum` is s and only written with a residual; mean and rstd (rows). Null
// `mean`: the norm is not centred.
template <class T>
struct NormResult {
  T *y, *sum;
  float *mean, *rstd;
};

template <class T>
void norm_forward(const Norm<T>& norm, const NormResult<T>& result);

// x is the s of the forward pass; `grad_sum`, which may be absent, is the gradient that reaches s other than through y.
template <class T>
struct NormBackward {
  RowView<T> grad, grad_sum, x, factor;
  const float *mean, *rstd;
  int64_t rows, width;
  int threads;
};

// dx and dgate (rows, width); dweight and dbias (width), summed over the rows. All but dx may be null, and at most one
// of dgate and dweight is given, as a factor is either a gate or a weight.
template <class T>
struct NormGradients {
  T *dx, *dgate, *dweight, *dbias;
};

template <class T>
void norm_backward(const NormBackward<T>& norm, const NormGradients<T>& gradients);

}  // namespace uqabench
