// Reads torch's tensors through DLPack, without torch's own headers.
//
// torch.Tensor.__dlpack_c_exchange_api__ (torch 2.10 and later) holds a C function that describes a tensor without
// owning it. The structs below have the layout of DLPack 1.x, which is fixed: https://dmlc.github.io/dlpack.
#pragma once

#include <Python.h>

#include <cstdint>

namespace uqabench {

enum class DType { float32, float64, bfloat16, float16, int64, other };

struct DlpackTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;  // in elements
  uint64_t byte_offset;

  bool is_on_cpu() const { return device_type == 1; }
  DType dtype() const;
  int64_t numel() const;
};

// Torch's types and its DLPack function, as `learn` received them; null before that.
struct Torch {
  PyTypeObject *tensor, *parameter;
  PyObject* dtypes[5];  // in the order of DType
  int (*describe)(void* tensor, DlpackTensor* to);
};
extern Torch torch;

// Fills `to` from a torch.Tensor or torch.nn.Parameter, but not from another subclass, which may override methods.
// Returns false, without a Python error, if `x` is neither or cannot be described (sparse, symbolic, on the device
// "meta").
bool describe_plain(PyObject* x, DlpackTensor* to);

// The same for any subclass of torch.Tensor: for tensors that a kernel receives.
bool describe(PyObject* x, DlpackTensor* to);

// Whether the memory holds the negatives of the tensor's values, as in a view of a conjugate's imaginary part.
bool is_negated(PyObject* tensor);

}  // namespace uqabench
