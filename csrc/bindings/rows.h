// Row views of arrays from Python.
#pragma once

#include "bindings/arrays.h"
#include "cpu/rows.h"

namespace uqabench {

template <class T>
RowView<T> rows(const Array<T>& x, const char* name, const Dims& shape) {
  require_shape(x, name, shape);
  return {x.data(), row_stride(x)};
}

template <class T>
RowView<T> rows(const std::optional<Array<T>>& x, const char* name, const Dims& shape) {
  return x ? rows(*x, name, shape) : RowView<T>{nullptr, 0};
}

}  // namespace uqabench
