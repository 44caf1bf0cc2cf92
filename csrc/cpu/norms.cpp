#ifndef UQ_ISA  // the driver; the kernels below are compiled once for each instruction set
#include "cpu/norms.h"

#include <algorithm>
#include <vector>

#include "cpu/parallel.h"

namespace uqabench {
namespace {

// Accumulators of the parameters' gradients, over one task's rows or over all rows. Null: not wanted.
struct ParameterSums {
  float *weight, *bias;
};

}  // namespace
}  // namespace uqabench

#define UQ_SOURCE "cpu/norms.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

template <class T>
void norm_forward(const Norm<T>& norm, const NormResult<T>& result) {
  static constexpr decltype(&baseline::forward<T>) kernels[] = UQ_TABLE(forward<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  // A row of ones or zeros stands in for what is absent, so that one kernel serves all cases.
  const std::vector<T> ones(norm.factor.data ? 0 : norm.width, one<T>);
  const std::vector<T> zeros(norm.bias ? 0 : norm.width, T{});
  Norm<T> full = norm;
  if (!norm.factor.data) full.factor = {ones.data(), 0};
  if (!norm.bias) full.bias = zeros.data();
  const RowTasks tasks(norm.rows, norm.width);
  parallel_for(tasks.count(), tasks.threads(norm.threads), 0,
               [&](int64_t i, float*) { kernel(full, result, tasks[i]); });
}

template <class T>
void norm_backward(const NormBackward<T>& norm, const NormGradients<T>& gradients) {
  static constexpr decltype(&baseline::backward<T>) kernels[] = UQ_TABLE(backward<T>);
  static constexpr decltype(&baseline::add_rows<T>) adders[] = UQ_TABLE(add_rows<T>);
  const int isa = static_cast<int>(current_isa());
  const std::vector<T> ones(norm.factor.data ? 0 : norm.width, one<T>);
  const std::vector<T> zeros(norm.grad_sum.data ? 0 : norm.width, T{});
  NormBackward<T> full = norm;
  if (!norm.factor.data) full.factor = {ones.data(), 0};
  if (!norm.grad_sum.data) full.grad_sum = {zeros.data(), 0};
  const RowTasks tasks(norm.rows, norm.width);
  // Each task sums the parameters' gradients over its rows; these partial sums are added in the order of the tasks.
  const int64_t each = tasks.count() * norm.width;
  const Scratch sums((gradients.dweight ? each : 0) + (gradients.dbias ? each : 0));
  const ParameterSums all{gradients.dweight ? sums.get() : nullptr,
                          gradients.dbias ? sums.get() + (gradients.dweight ? each : 0) : nullptr};
  parallel_for(tasks.count(), tasks.threads(norm.threads), 0, [&](int64_t i, float*) {
    const ParameterSums own{all.weight ? all.weight + i * norm.width : nullptr,
                            all.bias ? all.bias + i * norm.width : nullptr};
    kernels[isa](full, gradients, own, tasks[i]);
  });
  if (all.weight) adders[isa](all.weight, tasks.count(), norm.width, gradients.dweight);
  if (all.bias) adders[isa](all.bias, tasks.count(), norm.width, gradients.dbias);
}

template void norm_forward(const Norm<float>&, const NormResult<float>&);
template void norm_forward(const Norm<Bf16>&, const NormResult<Bf16>&);
template void norm_backward(const NormBackward<float>&, const NormGradients<float>&);
template void norm_backward(const NormBackward<Bf16>&, const NormGradients<Bf16>&);

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

// Access to a row's elements [i, i + lanes) as a vector.
struct Whole {
  int64_t i;
  UQ_INLINE Floats get(const auto* p) const { return load(p + i); }
  UQ_INLINE void put(auto* p, Floats x) const { store(p + i, x); }
  UQ_INLINE Floats masked(Floats x) const { return x; }
};

// The same for the last `count` elements of a row, with zeros in the other lanes.
struct Part {
  int64_t i, count;
  UQ_INLINE Floats get(const auto* p) const { return load_part(p + i, count); }
  UQ_INLINE void put(auto* p, Floats x) const { store_part(p + i, x, count); }
  UQ_INLINE Floats masked(Floats x) const {
    for (int lane = 0; lane < lanes; ++lane) x[lane] = lane < count ? x[lane] : 0.0f;
    return x;
  }
};

// Calls body(at, sums) for the vectors of a row of n elements; `sums` are Count accumulators, whose totals go to
// `totals`. Four sets of accumulators hide the latency of an addition.
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

// If there is a residual, writes the sum of the row and its residual. Returns the row that is to be normalised.
template <class T>
UQ_INLINE const T* add_residual(const Norm<T>& norm, const NormResult<T>& result, int64_t row) {
  const T* x = norm.x.at(row);
  if (!norm.residual.data) return x;
  const T* residual = norm.residual.at(row);
  T* sum = result.sum + row * norm.width;
  for_each_vector(norm.width, [&](auto get, auto put) { put(sum, get(x) + get(residual)); });
  return sum;
}

template <class T>
UQ_INLINE float row_mean(const T* x, int64_t width) {
  float total[1];
  sum_row(width, total, [&](auto at, Floats(&sum)[1]) { sum[0] += at.get(x); });
  return total[0] / static_cast<float>(width);
}

template <class T>
void forward(const Norm<T>& norm, const NormResult<T>& result, RowRange range) {
  const int64_t width = norm.width;
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T* x = add_residual(norm, result, row);
    const float mean = result.mean ? row_mean(x, width) : 0.0f;
    float squares[1];
    sum_row(width, squares, [&](auto at, Floats(&sum)[1]) {
      const Floats centred = at.masked(at.get(x) - mean);
      sum[0] = multiply_add(centred, centred, sum[0]);
    });
    const float rstd = 1.0f / __builtin_sqrtf(squares[0] / static_cast<float>(width) + norm.eps);
    const T *factor = norm.factor.at(row), *bias = norm.bias;
    T* y = result.y + row * width;
    for_each_vector(width, [&](auto get, auto put) {
      put(y, multiply_add((get(x) - mean) * rstd, get(factor), get(bias)));
    });
    if (result.mean) result.mean[row] = mean;
    result.rstd[row] = rstd;
  }
}

// total = the sum of `count` rows, accumulated in the first of them.
template <class T>
void add_rows(float* rows, int64_t count, int64_t width, T* total) {
  if (count == 0) return static_cast<void>(std::fill(total, total + width, T{}));
  for (int64_t row = 1; row < count; ++row) {
    const float* next = rows + row * width;
    for_each_vector(width, [&](auto get, auto put) { put(rows, get(rows) + get(next)); });
  }
  for_each_vector(width, [&](auto get, auto put) { put(total, get(rows)); });
}

// With n = (x - mean) * rstd and h = grad * factor: dfactor = grad * n, dx = rstd * (h - mean(h) - n * mean(h * n)),
// where mean(h) is left out of a norm that is not centred.
template <class T>
void backward(const NormBackward<T>& norm, const NormGradients<T>& gradients, const ParameterSums& sums,
              RowRange range) {
  const int64_t width = norm.width;
  const float count = static_cast<float>(width);
  float *dweight = sums.weight, *dbias = sums.bias;
  if (dweight) std::fill(dweight, dweight + width, 0.0f);
  if (dbias) std::fill(dbias, dbias + width, 0.0f);
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T *x = norm.x.at(row), *grad = norm.grad.at(row), *factor = norm.factor.at(row);
    const float mean = norm.mean ? norm.mean[row] : 0.0f, rstd = norm.rstd[row];
    T* dgate = gradients.dgate ? gradients.dgate + row * width : nullptr;
    float totals[2];
    const auto sum = [&](auto keep_gradient) {
      sum_row(width, totals, [&](auto at, Floats(&part)[2]) {
        const Floats g = at.get(grad), normal = (at.get(x) - mean) * rstd, h = g * at.get(factor);
        keep_gradient(at, g * normal);
        part[0] += h;
        part[1] = multiply_add(h, normal, part[1]);
      });
    };
    if (dgate) {
      sum([&](auto at, Floats product) { at.put(dgate, product); });
    } else if (dweight) {
      sum([&](auto at, Floats product) { at.put(dweight, at.get(dweight) + product); });
    } else {
      sum([](auto, Floats) {});
    }
    if (dbias) {
      for_each_vector(width, [&](auto get, auto put) { put(dbias, get(dbias) + get(grad)); });
    }
    const float shift = norm.mean ? totals[0] / count : 0.0f, projection = totals[1] / count;
    const T* grad_sum = norm.grad_sum.at(row);
    T* dx = gradients.dx + row * width;
    for_each_vector(width, [&](auto get, auto put) {
      const Floats normal = (get(x) - mean) * rstd, h = get(grad) * get(factor);
      put(dx, multiply_add(h - shift - normal * projection, broadcast(rstd), get(grad_sum)));
    });
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
