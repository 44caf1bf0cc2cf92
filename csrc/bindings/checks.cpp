// The argument checks of `kernels/checks.py`, as predicates that take one call each. Python asks here first and only
// looks for what is wrong where the answer is no; "no" may also mean that the tensor is of a kind unknown here.
//
// They are plain functions of Python's C API because a pybind11 function takes five times as long to call.
#include <pybind11/pybind11.h>

#include <algorithm>

#include "bindings/bind.h"
#include "bindings/tensor.h"

namespace py = pybind11;

namespace uqabench {
namespace {

// Reading this many ids takes about 2 us. Python remembers the bounds of longer tensors instead of reading them again.
constexpr int64_t few_ids = 4096;

using Arguments = PyObject* const*;

PyObject* answer(bool yes) { return PyBool_FromLong(yes); }

bool has_count(Py_ssize_t count, Py_ssize_t least, const char* function) {
  if (count >= least) return true;
  PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd.", function, least, count);
  return false;
}

bool is_one_of(DType dtype, PyObject* allowed) {
  if (dtype == DType::other || !PyTuple_Check(allowed)) return false;
  const PyObject* wanted = torch.dtypes[static_cast<int>(dtype)];
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(allowed); ++i)
    if (PyTuple_GET_ITEM(allowed, i) == wanted) return true;
  return false;
}

bool has_dense_rows(const DlpackTensor& x) {
  return x.ndim == 0 || x.shape[x.ndim - 1] <= 1 || x.strides[x.ndim - 1] == 1;
}

// `wanted` is a tuple of sizes, with None for any size.
bool has_shape(const DlpackTensor& x, PyObject* wanted) {
  if (!PyTuple_Check(wanted) || PyTuple_GET_SIZE(wanted) != x.ndim) return false;
  for (int32_t i = 0; i < x.ndim; ++i) {
    PyObject* size = PyTuple_GET_ITEM(wanted, i);
    if (size == Py_None) continue;
    if (!PyLong_Check(size)) return false;
    int overflow = 0;
    if (PyLong_AsLongLongAndOverflow(size, &overflow) != x.shape[i] || overflow) return false;
  }
  return true;
}

// fits(x, shape, dtypes): what check_tensor asks.
PyObject* fits(PyObject*, Arguments args, Py_ssize_t count) {
  if (!has_count(count, 3, "fits")) return nullptr;
  DlpackTensor x;
  return answer(describe_plain(args[0], &x) && has_shape(x, args[1]) && is_one_of(x.dtype(), args[2]) &&
                has_dense_rows(x));
}

// are_rows(x, dtypes): what check_rows asks.
PyObject* are_rows(PyObject*, Arguments args, Py_ssize_t count) {
  if (!has_count(count, 2, "are_rows")) return nullptr;
  DlpackTensor x;
  return answer(describe_plain(args[0], &x) && x.ndim >= 1 && x.shape[x.ndim - 1] >= 1 &&
                is_one_of(x.dtype(), args[1]) && has_dense_rows(x));
}

// are_alike(first, dtype, *others): what check_same asks.
PyObject* are_alike(PyObject*, Arguments args, Py_ssize_t count) {
  if (!has_count(count, 2, "are_alike")) return nullptr;
  DlpackTensor first, x;
  if (!describe_plain(args[0], &first)) Py_RETURN_FALSE;
  for (Py_ssize_t i = 2; i < count; ++i) {
    if (args[i] == Py_None) continue;
    if (!describe_plain(args[i], &x)) Py_RETURN_FALSE;
    if (x.device_type != first.device_type || x.device_id != first.device_id) Py_RETURN_FALSE;
    if (args[1] == Py_True && (x.dtype() != first.dtype() || x.dtype() == DType::other)) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

// fit_like(first, dtypes, others): what check_like asks of a dictionary whose values are None or (tensor, shape).
PyObject* fit_like(PyObject*, Arguments args, Py_ssize_t count) {
  if (!has_count(count, 3, "fit_like")) return nullptr;
  DlpackTensor first, x;
  if (!PyDict_Check(args[2]) || !describe_plain(args[0], &first) || first.dtype() == DType::other) Py_RETURN_FALSE;
  PyObject *name, *pair;
  for (Py_ssize_t at = 0; PyDict_Next(args[2], &at, &name, &pair);) {
    if (pair == Py_None) continue;
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) Py_RETURN_FALSE;
    if (!describe_plain(PyTuple_GET_ITEM(pair, 0), &x) || !has_shape(x, PyTuple_GET_ITEM(pair, 1))) Py_RETURN_FALSE;
    if (x.device_type != first.device_type || x.device_id != first.device_id || !has_dense_rows(x)) Py_RETURN_FALSE;
    const bool is_first = x.dtype() == first.dtype() && x.dtype() != DType::int64;
    if (args[1] == Py_None ? !is_first : !is_one_of(x.dtype(), args[1])) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

bool describe_integers(PyObject* x, DlpackTensor* to) {
  return describe_plain(x, to) && to->is_on_cpu() && to->dtype() == DType::int64 && to->ndim == 1 &&
         has_dense_rows(*to) && (to->data || to->shape[0] == 0);
}

// do_rise(offsets, tokens): what check_offsets asks of tensors in the processor's memory: offsets that are monotone
// from 0 to the number of tokens.
PyObject* do_rise(PyObject*, Arguments args, Py_ssize_t count) {
  if (!has_count(count, 2, "do_rise")) return nullptr;
  DlpackTensor offsets, tokens;
  if (!describe_integers(args[0], &offsets) || offsets.shape[0] < 1) Py_RETURN_FALSE;
  if (!describe_plain(args[1], &tokens) || !tokens.is_on_cpu() || tokens.ndim < 1) Py_RETURN_FALSE;
  const auto* at = static_cast<const int64_t*>(offsets.data);
  const int64_t size = offsets.shape[0];
  return answer(at[0] == 0 && at[size - 1] == tokens.shape[0] && std::is_sorted(at, at + size));
}

// do_lie_below(ids, size, ignored): what check_indices asks of at most `few_ids` ids in the processor's memory: that
// each lies in [0, size) or equals `ignored`.
PyObject* do_lie_below(PyObject*, Arguments args, Py_ssize_t count) {
  if (!has_count(count, 3, "do_lie_below")) return nullptr;
  DlpackTensor ids;
  if (!describe_integers(args[0], &ids) || ids.shape[0] > few_ids) Py_RETURN_FALSE;
  const long long size = PyLong_AsLongLong(args[1]);
  const long long ignored = args[2] == Py_None ? 0 : PyLong_AsLongLong(args[2]);
  if (PyErr_Occurred()) {
    PyErr_Clear();
    Py_RETURN_FALSE;
  }
  const bool ignores = args[2] != Py_None;
  const auto* at = static_cast<const int64_t*>(ids.data);
  return answer(std::all_of(at, at + ids.shape[0], [=](int64_t id) {
    return (id >= 0 && id < size) || (ignores && id == ignored);
  }));
}

bool requires_grad(PyObject* tensor) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  PyObject* value = PyObject_GetAttr(tensor, name);
  if (!value) PyErr_Clear();
  const bool is_true = value == Py_True;
  Py_XDECREF(value);
  return is_true;
}

// are_plain(args): no tensor of the tuple is of a subclass, which may override what a call does.
PyObject* are_plain(PyObject*, PyObject* args) {
  if (!PyTuple_Check(args)) Py_RETURN_FALSE;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) {
    PyObject* x = PyTuple_GET_ITEM(args, i);
    const PyTypeObject* type = Py_TYPE(x);
    if (type != torch.tensor && type != torch.parameter && PyObject_TypeCheck(x, torch.tensor)) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

// want_gradients(args): a tensor of the tuple requires a gradient.
PyObject* want_gradients(PyObject*, PyObject* args) {
  if (!PyTuple_Check(args)) Py_RETURN_FALSE;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) {
    PyObject* x = PyTuple_GET_ITEM(args, i);
    if (PyObject_TypeCheck(x, torch.tensor) && requires_grad(x)) Py_RETURN_TRUE;
  }
  Py_RETURN_FALSE;
}

struct ExchangeApi {  // DLPack's DLPackExchangeAPI
  uint32_t major, minor;
  void* previous;
  void *allocate, *export_owned, *import_owned;
  int (*describe)(void* tensor, DlpackTensor* to);
};

void learn(const py::object& tensor, const py::object& parameter, const py::tuple& dtypes, const py::capsule& api) {
  const auto* exchange = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(api.ptr(), "dlpack_exchange_api"));
  if (!exchange) throw py::error_already_set();
  if (exchange->major != 1 || !exchange->describe || dtypes.size() != std::size(torch.dtypes))
    throw py::value_error("torch's tensors are not described as DLPack 1 does.");
  for (size_t i = 0; i < dtypes.size(); ++i) torch.dtypes[i] = py::object(dtypes[i]).release().ptr();
  torch.tensor = reinterpret_cast<PyTypeObject*>(py::object(tensor).release().ptr());
  torch.parameter = reinterpret_cast<PyTypeObject*>(py::object(parameter).release().ptr());
  torch.describe = exchange->describe;
}

template <class Function>
PyCFunction as_method(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"fits", as_method(fits), METH_FASTCALL, nullptr},
    {"are_rows", as_method(are_rows), METH_FASTCALL, nullptr},
    {"are_alike", as_method(are_alike), METH_FASTCALL, nullptr},
    {"fit_like", as_method(fit_like), METH_FASTCALL, nullptr},
    {"do_rise", as_method(do_rise), METH_FASTCALL, nullptr},
    {"do_lie_below", as_method(do_lie_below), METH_FASTCALL, nullptr},
    {"are_plain", are_plain, METH_O, nullptr},
    {"want_gradients", want_gradients, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_checks(py::module_& m) {
  py::module_ tensors = m.def_submodule("tensors", "Quick answers about torch's tensors, once `learn` knows torch.");
  tensors.def("learn", learn, py::arg("tensor"), py::arg("parameter"), py::arg("dtypes"), py::arg("api"));
  if (PyModule_AddFunctions(tensors.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace uqabench
