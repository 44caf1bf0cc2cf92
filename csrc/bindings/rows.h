// Rows of floats from Python.
#pragma once

#include "bindings/arrays.h"
#include "cpu/rows.h"

namespace uqabench {

inline RowView rows(const FloatArray& x, const char* name, const Dims& shape) {
  require_shape(x, name, shape);
  return {x.data(), row_stride(x)};
}

inline RowView rows(const std::optional<FloatArray>& x, const char* name, const Dims& shape) {
  return x ? rows(*x, name, shape) : RowView{nullptr, 0};
}

}  // namespace uqabench
