// The functions that add the operators' kernels to the module, one for each source file of this folder.
#pragma once

#include <pybind11/pybind11.h>

namespace uqabench {

void bind_causal_attention(pybind11::module_& m);
void bind_causal_conv1d(pybind11::module_& m);
void bind_cuda_selective_scan(pybind11::module_& m);  // This and the next exist where CUDA is compiled in.
void bind_cuda_versions(pybind11::module_& m);
void bind_embedding_bag(pybind11::module_& m);
void bind_gru(pybind11::module_& m);
void bind_hstu_attention(pybind11::module_& m);
void bind_linear_cross_entropy(pybind11::module_& m);
void bind_linear_rank(pybind11::module_& m);
void bind_norms(pybind11::module_& m);
void bind_rope(pybind11::module_& m);
void bind_selective_scan(pybind11::module_& m);
void bind_ssd_scan(pybind11::module_& m);
void bind_swiglu(pybind11::module_& m);

}  // namespace uqabench
