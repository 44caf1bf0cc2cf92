#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/norms.h"

#include <algorithm>
#include <vector>

#include "cpu/parallel.h"

#define UQ_SOURCE "cpu/norms.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

void norm_forward(const Norm& norm, const NormResult& result) {
  static constexpr decltype(&baseline::forward) kernels[] = UQ_TABLE(forward);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  // What is absent stands as a row in the nearest cache: one kernel serves all.
  const std::vector<float> ones(norm.factor.data ? 0 : norm.width, 1.0f);
  const std::vector<float> zeros(norm.bias ? 0 : norm.width, 0.0f);
  Norm full = norm;
  if (!norm.factor.data) full.factor = {ones.data(), 0};
  if (!norm.bias) full.bias = zeros.data();
  const RowTasks tasks(norm.rows, norm.width);
  parallel_for(tasks.count(), tasks.threads(norm.threads), 0,
               [&](int64_t i, float*) { kernel(full, result, tasks[i]); });
}

void norm_backward(const NormBackward& norm, const NormGradients& gradients) {
  static constexpr decltype(&baseline::backward) kernels[] = UQ_TABLE(backward);
  static constexpr decltype(&baseline::add_rows) adders[] = UQ_TABLE(add_rows);
  const int isa = static_cast<int>(current_isa());
  const std::vector<float> ones(norm.factor.data ? 0 : norm.width, 1.0f);
  const std::vector<float> zeros(norm.grad_sum.data ? 0 : norm.width, 0.0f);
  NormBackward full = norm;
  if (!norm.factor.data) full.factor = {ones.data(), 0};
  if (!norm.grad_sum.data) full.grad_sum = {zeros.data(), 0};
  const RowTasks tasks(norm.rows, norm.width);
  // Each task sums the parameters' gradients over its rows; the sums are added in the tasks' order.
  const int64_t each = tasks.count() * norm.width;
  const Scratch sums((gradients.dweight ? each : 0) + (gradients.dbias ? each : 0));
  float* weight_sums = gradients.dweight ? sums.get() : nullptr;
  float* bias_sums = gradients.dbias ? sums.get() + (gradients.dweight ? each : 0) : nullptr;
  parallel_for(tasks.count(), tasks.threads(norm.threads), 0, [&](int64_t i, float*) {
    NormGradients own = gradients;
    if (weight_sums) own.dweight = weight_sums + i * norm.width;
    if (bias_sums) own.dbias = bias_sums + i * norm.width;
    kernels[isa](full, own, tasks[i]);
  });
  if (weight_sums) adders[isa](weight_sums, tasks.count(), norm.width, gradients.dweight);
  if (bias_sums) adders[isa](bias_sums, tasks.count(), norm.width, gradients.dbias);
}

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// The vector at floats [i, i + lanes) of a row, and the last one of a row, whose other lanes are zero.
struct Whole {
  int64_t i;
  UQ_INLINE Floats get(const float* p) const { return load(p + i); }
  UQ_INLINE void put(float* p, Floats x) const { store(p + i, x); }
  UQ_INLINE Floats real(Floats x) const { return x; }
};

struct Part {
  int64_t i, count;
  UQ_INLINE Floats get(const float* p) const { return load_part(p + i, count); }
  UQ_INLINE void put(float* p, Floats x) const { store_part(p + i, x, count); }
  UQ_INLINE Floats real(Floats x) const {
    for (int lane = 0; lane < lanes; ++lane) x[lane] = lane < count ? x[lane] : 0.0f;
    return x;
  }
};

// body(at, sums) for the vectors of a row of n floats; `sums` are Count running sums, whose totals go to `totals`. Four
// sets of them keep the latency of an addition out of the way.
template <int Count, class Body>
UQ_INLINE void sum_row(int64_t n, float (&totals)[Count], const Body& body) {
  constexpr int sets = 4;
  Floats sums[sets][Count] = {};
  int64_t i = 0;
  for (; i + sets * lanes <= n; i += sets * lanes) {
    for (int set = 0; set < sets; ++set) body(Whole{i + set * lanes}, sums[set]);
  }
  for (; i + lanes <= n; i += lanes) body(Whole{i}, sums[0]);
  if (i < n) body(Part{i, n - i}, sums[1]);
  for (int s = 0; s < Count; ++s) {
    totals[s] = sum_lanes((sums[0][s] + sums[1][s]) + (sums[2][s] + sums[3][s]));
  }
}

// Writes the row's sum of x and residual if there is one; returns where the row to be normalised lies.
UQ_INLINE const float* add_residual(const Norm& norm, const NormResult& result, int64_t row) {
  const float* x = norm.x.at(row);
  if (!norm.residual.data) return x;
  const float* residual = norm.residual.at(row);
  float* sum = result.sum + row * norm.width;
  for_each_vector(norm.width, [&](auto get, auto put) { put(sum, get(x) + get(residual)); });
  return sum;
}

UQ_INLINE float row_mean(const float* x, int64_t width) {
  float total[1];
  sum_row(width, total, [&](auto at, Floats(&sum)[1]) { sum[0] += at.get(x); });
  return total[0] / static_cast<float>(width);
}

inline void forward(const Norm& norm, const NormResult& result, RowRange range) {
  const int64_t width = norm.width;
  for (int64_t row = range.begin; row < range.end; ++row) {
    const float* x = add_residual(norm, result, row);
    const float mean = result.mean ? row_mean(x, width) : 0.0f;
    float squares[1];
    sum_row(width, squares, [&](auto at, Floats(&sum)[1]) {
      const Floats centred = at.real(at.get(x) - mean);
      sum[0] = multiply_add(centred, centred, sum[0]);
    });
    const float rstd = 1.0f / __builtin_sqrtf(squares[0] / static_cast<float>(width) + norm.eps);
    const float *factor = norm.factor.at(row), *bias = norm.bias;
    float* y = result.y + row * width;
    for_each_vector(width, [&](auto get, auto put) {
      put(y, multiply_add((get(x) - mean) * rstd, get(factor), get(bias)));
    });
    if (result.mean) result.mean[row] = mean;
    result.rstd[row] = rstd;
  }
}

inline void add_rows(const float* rows, int64_t count, int64_t width, float* total) {
  std::fill(total, total + width, 0.0f);
  for (int64_t row = 0; row < count; ++row, rows += width) {
    for_each_vector(width, [&](auto get, auto put) { put(total, get(total) + get(rows)); });
  }
}

// With n = (x - mean) * rstd and h = grad * factor: dfactor = grad * n, dx = rstd * (h - mean(h) - n * mean(h * n)),
// where mean(h) is left out of a norm that is not centred.
inline void backward(const NormBackward& norm, const NormGradients& gradients, RowRange range) {
  const int64_t width = norm.width;
  const float count = static_cast<float>(width);
  if (gradients.dweight) std::fill(gradients.dweight, gradients.dweight + width, 0.0f);
  if (gradients.dbias) std::fill(gradients.dbias, gradients.dbias + width, 0.0f);
  for (int64_t row = range.begin; row < range.end; ++row) {
    const float *x = norm.x.at(row), *grad = norm.grad.at(row), *factor = norm.factor.at(row);
    const float mean = norm.mean ? norm.mean[row] : 0.0f, rstd = norm.rstd[row];
    float* dgate = gradients.dgate ? gradients.dgate + row * width : nullptr;
    float* dweight = gradients.dweight;
    float totals[2];
    const auto sum = [&](auto keep_gradient) {
      sum_row(width, totals, [&](auto at, Floats(&sums)[2]) {
        const Floats g = at.get(grad), normal = (at.get(x) - mean) * rstd, h = g * at.get(factor);
        keep_gradient(at, g * normal);
        sums[0] += h;
        sums[1] = multiply_add(h, normal, sums[1]);
      });
    };
    if (dgate) {
      sum([&](auto at, Floats product) { at.put(dgate, product); });
    } else if (dweight) {
      sum([&](auto at, Floats product) { at.put(dweight, at.get(dweight) + product); });
    } else {
      sum([](auto, Floats) {});
    }
    if (float* dbias = gradients.dbias) {
      for_each_vector(width, [&](auto get, auto put) { put(dbias, get(dbias) + get(grad)); });
    }
    const float shift = norm.mean ? totals[0] / count : 0.0f, slope = totals[1] / count;
    const float* grad_sum = norm.grad_sum.at(row);
    float* dx = gradients.dx + row * width;
    for_each_vector(width, [&](auto get, auto put) {
      const Floats normal = (get(x) - mean) * rstd, h = get(grad) * get(factor);
      put(dx, multiply_add(h - shift - normal * slope, broadcast(rstd), get(grad_sum)));
    });
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
