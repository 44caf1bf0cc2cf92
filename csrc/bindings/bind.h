// One function a file of this folder: each adds its operator's kernels to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace uqabench {

void bind_causal_attention(pybind11::module_& m);
void bind_causal_conv1d(pybind11::module_& m);
void bind_embedding_bag(pybind11::module_& m);
void bind_hstu_attention(pybind11::module_& m);
void bind_linear_rank(pybind11::module_& m);

}  // namespace uqabench
