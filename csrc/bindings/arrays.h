// Checks of the arrays that Python hands to a kernel.
//
// Arrays come as NumPy views of the tensors' memory and are never copied: a wrong dtype is a TypeError. The operators
// have checked their arguments already; what could read or write out of bounds is checked here again.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "cpu/packed.h"

namespace uqabench {

namespace py = pybind11;

using FloatArray = py::array_t<float, 0>;
using IntArray = py::array_t<int64_t, 0>;
using Dims = std::vector<py::ssize_t>;

inline void require(bool holds, const std::string& message) {
  if (!holds) throw py::value_error(message);
}

// `x` has that shape, its elements lie where the processor wants them, and its last dimension is contiguous.
inline void require_shape(const py::array& x, const char* name, const Dims& shape) {
  require(x.ndim() == static_cast<py::ssize_t>(shape.size()) && std::equal(shape.begin(), shape.end(), x.shape()),
          std::string(name) + " has the wrong shape.");
  require(x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_, std::string(name) + " must be aligned.");
  require(x.size() == 0 || x.shape(x.ndim() - 1) <= 1 || x.strides(x.ndim() - 1) == x.itemsize(),
          std::string(name) + " must be contiguous in its last dimension.");
}

// As require_shape, and contiguous as a whole.
inline void require_contiguous(const py::array& x, const char* name, const Dims& shape) {
  require_shape(x, name, shape);
  require(x.size() == 0 || x.flags() & py::array::c_style, std::string(name) + " must be contiguous.");
}

// The memory of an array that is read as a whole, and of one that is written.
inline const float* input(const FloatArray& x, const char* name, const Dims& shape) {
  require_contiguous(x, name, shape);
  return x.data();
}

inline float* output(FloatArray& x, const char* name, const Dims& shape) {
  require_contiguous(x, name, shape);
  return x.mutable_data();
}

// As above; null if absent.
inline const float* input(const std::optional<FloatArray>& x, const char* name, const Dims& shape) {
  return x ? input(*x, name, shape) : nullptr;
}

inline float* output(std::optional<FloatArray>& x, const char* name, const Dims& shape) {
  return x ? output(*x, name, shape) : nullptr;
}

// Elements from one row of a two-dimensional array to the next. Like `heads`, it may be called without the GIL:
// asking NumPy for the size of an element would count a reference.
template <typename T>
int64_t row_stride(const py::array_t<T, 0>& x) {
  return x.strides(0) / static_cast<int64_t>(sizeof(T));
}

// Rows of heads: (tokens, heads, width).
inline HeadView heads(const FloatArray& x) {
  constexpr auto bytes = static_cast<int64_t>(sizeof(float));
  return {x.data(), x.strides(0) / bytes, x.strides(1) / bytes};
}

inline void require_values_in(const IntArray& x, const char* name, int64_t size) {
  const int64_t* data = x.data();
  require(std::all_of(data, data + x.size(), [size](int64_t v) { return v >= 0 && v < size; }),
          std::string(name) + " must lie in [0, " + std::to_string(size) + ").");
}

inline void require_threads(int threads) { require(threads >= 1, "threads must be at least 1."); }

// Offsets (B + 1) that rise from 0 to `tokens` without falling; returns their memory.
inline const int64_t* checked_offsets(const IntArray& offsets, int64_t tokens) {
  require(offsets.ndim() == 1 && offsets.size() >= 1, "offsets must have one dimension and at least one entry.");
  require_shape(offsets, "offsets", {offsets.size()});
  const int64_t* at = offsets.data();
  require(at[0] == 0 && at[offsets.size() - 1] == tokens, "offsets must go from 0 to the number of tokens.");
  for (py::ssize_t b = 0; b + 1 < offsets.size(); ++b) require(at[b + 1] >= at[b], "offsets must not fall.");
  return at;
}

}  // namespace uqabench
