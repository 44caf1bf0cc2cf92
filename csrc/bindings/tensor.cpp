#include "bindings/tensor.h"

namespace uqabench {

Torch torch{};

DType DlpackTensor::dtype() const {
  if (lanes != 1) return DType::other;
  if (code == 2 && bits == 32) return DType::float32;
  if (code == 2 && bits == 64) return DType::float64;
  if (code == 2 && bits == 16) return DType::float16;
  if (code == 4 && bits == 16) return DType::bfloat16;
  if (code == 0 && bits == 64) return DType::int64;
  return DType::other;
}

int64_t DlpackTensor::numel() const {
  int64_t product = 1;
  for (int32_t i = 0; i < ndim; ++i) product *= shape[i];
  return product;
}

namespace {

bool filled(PyObject* x, DlpackTensor* to) {
  if (torch.describe(x, to) == 0) return true;
  PyErr_Clear();
  return false;
}

}  // namespace

bool describe_plain(PyObject* x, DlpackTensor* to) {
  const PyTypeObject* type = Py_TYPE(x);
  return torch.describe && (type == torch.tensor || type == torch.parameter) && filled(x, to);
}

bool describe(PyObject* x, DlpackTensor* to) {
  return torch.describe && PyObject_TypeCheck(x, torch.tensor) && filled(x, to);
}

bool is_negated(PyObject* tensor) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  PyObject* answer = PyObject_CallMethodNoArgs(tensor, name);
  if (!answer) PyErr_Clear();
  const bool negated = answer == Py_True;
  Py_XDECREF(answer);
  return negated;
}

}  // namespace uqabench
