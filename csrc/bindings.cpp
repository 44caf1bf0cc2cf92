// The Python module uqabench._native. bindings/ checks arguments and releases the GIL; the work is in cpu/ and cuda/.
#include "bindings/bind.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/isa.h"

namespace py = pybind11;
using namespace uqabench;

namespace {

void bind_instruction_sets(py::module_& m) {
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (is_supported(isa)) names.emplace_back(isa_names[static_cast<int>(isa)]);
    }
    return names;
  }, "Names of the instruction sets that this machine can run, narrowest first.");
  m.def("instruction_set", [] { return isa_names[static_cast<int>(current_isa())]; },
        "Name of the instruction set that the kernels use.");
  m.def("set_instruction_set", [](const std::string& name) {
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (name == isa_names[static_cast<int>(isa)] && is_supported(isa)) return set_isa(isa);
    }
    throw py::value_error("instruction set '" + name + "' is unknown or not supported by this machine.");
  }, py::arg("name"), "Makes the kernels use that instruction set, in every thread, from the next call on.");
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of uqabench.";
#ifdef UQABENCH_CUDA
  m.attr("has_cuda") = true;
  bind_cuda_selective_scan(m);
  bind_cuda_versions(m);
#else
  m.attr("has_cuda") = false;
#endif
  bind_instruction_sets(m);
  bind_causal_attention(m);
  bind_causal_conv1d(m);
  bind_embedding_bag(m);
  bind_gru(m);
  bind_hstu_attention(m);
  bind_linear_cross_entropy(m);
  bind_linear_rank(m);
  bind_norms(m);
  bind_rope(m);
  bind_selective_scan(m);
  bind_ssd_scan(m);
  bind_swiglu(m);
}
