// Tensors of torch as DLPack sees them, read in nanoseconds: torch's own headers are not needed.
//
// torch.Tensor.__dlpack_c_exchange_api__ (torch 2.10 and later) holds a C function that describes a tensor without
// owning it. The structs below are DLPack 1.x's, whose layout is fixed: https://dmlc.github.io/dlpack.
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

// What `learn` was told of torch; null before.
struct Torch {
  PyTypeObject *tensor, *parameter;
  PyObject* dtypes[5];  // in the order of DType
  int (*describe)(void* tensor, DlpackTensor* to);
};
extern Torch torch;

// Fills `to` from a torch.Tensor or torch.nn.Parameter, but from no other subclass, whose methods may differ. False if
// `x` is none, or has no description (sparse, symbolic, on "meta"): no error is left behind.
bool describe_plain(PyObject* x, DlpackTensor* to);

// As above, subclasses included: for tensors that have come to a kernel.
bool describe(PyObject* x, DlpackTensor* to);

// A view of a complex tensor's imaginary part, say, whose memory holds the values' negatives.
bool is_negated(PyObject* tensor);

}  // namespace uqabench
