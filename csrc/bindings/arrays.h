// The arrays that Python hands to a kernel, and their checks.
//
// An array is NumPy's view of a tensor in the processor's memory (of bf16, which NumPy lacks, as uint16); a wrong dtype
// is a TypeError. The operators have checked their arguments already, but everything that could make a kernel read or
// write out of bounds is checked here again. Only the integers that a kernel indexes by are copied (IndexArray): once
// the GIL is released, another thread may overwrite what has been checked.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/bf16.h"
#include "cpu/packed.h"

namespace uqabench {

namespace py = pybind11;

// A view of memory that a Python object owns. It is valid for as long as that object is an argument of the call.
template <class T>
class Array {
 public:
  static constexpr int max_dims = 8;

  Array() = default;
  // `strides` count bytes.
  Array(void* data, bool is_writable, int ndim, const py::ssize_t* shape, const py::ssize_t* strides)
      : data_(static_cast<T*>(data)), is_writable_(is_writable), ndim_(ndim) {
    std::copy_n(shape, ndim, shape_);
    std::copy_n(strides, ndim, strides_);
  }

  int ndim() const { return ndim_; }
  const py::ssize_t* shape() const { return shape_; }
  py::ssize_t shape(int i) const { return shape_[i]; }
  py::ssize_t strides(int i) const { return strides_[i]; }
  py::ssize_t itemsize() const { return sizeof(T); }
  const T* data() const { return data_; }

  T* mutable_data() {
    if (!is_writable_) throw std::domain_error("array is not writeable");
    return data_;
  }

  py::ssize_t size() const {
    py::ssize_t product = 1;
    for (int i = 0; i < ndim_; ++i) product *= shape_[i];
    return product;
  }

  bool is_aligned() const {
    bool aligned = reinterpret_cast<uintptr_t>(data_) % alignof(T) == 0;
    for (int i = 0; i < ndim_; ++i) aligned &= strides_[i] % static_cast<py::ssize_t>(alignof(T)) == 0;
    return aligned;
  }

  bool is_contiguous() const {
    py::ssize_t expected = sizeof(T);
    for (int i = ndim_ - 1; i >= 0; --i) {
      if (shape_[i] != 1 && strides_[i] != expected) return size() == 0;
      expected *= shape_[i];
    }
    return true;
  }

 private:
  T* data_ = nullptr;
  bool is_writable_ = false;
  int ndim_ = 0;
  py::ssize_t shape_[max_dims] = {}, strides_[max_dims] = {};
};

using FloatArray = Array<float>;
using IntArray = Array<int64_t>;

// Integers that a kernel indexes by: offsets, ids, targets. They are copied before they are checked, so that the values
// that have been checked are the values that are used, whatever other threads write meanwhile. An array that is not one
// row of adjacent elements is not copied: `require_shape` refuses it.
class IndexArray {
 public:
  IndexArray() = default;
  explicit IndexArray(const IntArray& array) : array_(array) {
    if (array.ndim() == 1 && array.is_aligned() && array.is_contiguous())
      values_.assign(array.data(), array.data() + array.size());
  }

  const IntArray& array() const { return array_; }
  int ndim() const { return array_.ndim(); }
  py::ssize_t size() const { return array_.size(); }
  const int64_t* data() const { return values_.data(); }

 private:
  IntArray array_;
  std::vector<int64_t> values_;
};

using Dims = std::vector<py::ssize_t>;

inline void require(bool holds, const std::string& message) {
  if (!holds) throw py::value_error(message);
}

// As above, but the message is only composed when it is needed: each array is checked three times.
inline void require(bool holds, const char* name, const char* message) {
  if (!holds) throw py::value_error(std::string(name) + message);
}

// `x` has that shape, its elements are aligned, and its last dimension is contiguous.
template <class T>
void require_shape(const Array<T>& x, const char* name, const Dims& shape) {
  require(x.ndim() == static_cast<py::ssize_t>(shape.size()) && std::equal(shape.begin(), shape.end(), x.shape()),
          name, " has the wrong shape.");
  require(x.is_aligned(), name, " must be aligned.");
  require(x.size() == 0 || x.ndim() == 0 || x.shape(x.ndim() - 1) <= 1 || x.strides(x.ndim() - 1) == x.itemsize(), name,
          " must be contiguous in its last dimension.");
}

// As require_shape, and contiguous as a whole.
template <class T>
void require_contiguous(const Array<T>& x, const char* name, const Dims& shape) {
  require_shape(x, name, shape);
  require(x.is_contiguous(), name, " must be contiguous.");
}

// The memory of a contiguous array of that shape: `input` for one that is read, `output` for one that is written.
template <class T>
const T* input(const Array<T>& x, const char* name, const Dims& shape) {
  require_contiguous(x, name, shape);
  return x.data();
}

template <class T>
T* output(Array<T>& x, const char* name, const Dims& shape) {
  require_contiguous(x, name, shape);
  return x.mutable_data();
}

// The same for an argument that may be None, which is a null pointer.
template <class T>
const T* input(const std::optional<Array<T>>& x, const char* name, const Dims& shape) {
  return x ? input(*x, name, shape) : nullptr;
}

template <class T>
T* output(std::optional<Array<T>>& x, const char* name, const Dims& shape) {
  return x ? output(*x, name, shape) : nullptr;
}

// The distance from one row of a two-dimensional array to the next, in elements.
template <class T>
int64_t row_stride(const Array<T>& x) { return x.strides(0) / x.itemsize(); }

// A view of an array (tokens, heads, width).
template <class T>
HeadsOf<T> heads(const Array<T>& x) {
  constexpr auto bytes = static_cast<int64_t>(sizeof(T));
  return {x.data(), x.strides(0) / bytes, x.strides(1) / bytes};
}

// Indices of `count` elements, each in [0, size).
inline const int64_t* checked_indices(const IndexArray& x, const char* name, py::ssize_t count, int64_t size) {
  require_shape(x.array(), name, {count});
  const int64_t* values = x.data();
  require(std::all_of(values, values + count, [size](int64_t v) { return v >= 0 && v < size; }),
          std::string(name) + " must lie in [0, " + std::to_string(size) + ").");
  return values;
}

inline void require_threads(int threads) { require(threads >= 1, "threads must be at least 1."); }

// Offsets (B + 1), monotone from 0 to `tokens`.
inline const int64_t* checked_offsets(const IndexArray& offsets, int64_t tokens) {
  require(offsets.ndim() == 1 && offsets.size() >= 1, "offsets must have one dimension and at least one entry.");
  require_shape(offsets.array(), "offsets", {offsets.size()});
  const int64_t *begin = offsets.data(), *end = begin + offsets.size();
  require(*begin == 0 && end[-1] == tokens, "offsets must go from 0 to the number of tokens.");
  require(std::is_sorted(begin, end), "offsets must not fall.");
  return begin;
}

}  // namespace uqabench

namespace pybind11::detail {

template <class T>
struct type_caster<uqabench::Array<T>> {
  using Array = uqabench::Array<T>;
  PYBIND11_TYPE_CASTER(Array, const_name("array"));

  bool load(handle from, bool) {
    using Element = std::conditional_t<std::is_same_v<T, uqabench::Bf16>, uint16_t, T>;
    if (!array_t<Element, 0>::check_(from)) return false;
    const auto x = reinterpret_borrow<array_t<Element, 0>>(from);
    if (x.ndim() > Array::max_dims) return false;
    value = Array(const_cast<Element*>(x.data()), x.writeable(), static_cast<int>(x.ndim()), x.shape(), x.strides());
    return true;
  }
};

template <>
struct type_caster<uqabench::IndexArray> {
  PYBIND11_TYPE_CASTER(uqabench::IndexArray, const_name("array"));

  bool load(handle from, bool convert) {
    make_caster<uqabench::IntArray> array;
    if (!array.load(from, convert)) return false;
    value = uqabench::IndexArray(cast_op<uqabench::IntArray&>(array));
    return true;
  }
};

}  // namespace pybind11::detail
