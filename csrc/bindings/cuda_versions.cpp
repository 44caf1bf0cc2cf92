#include <cuda_runtime.h>

#include <utility>

#include <pybind11/stl.h>

#include "bindings/bind.h"

namespace uqabench {

void bind_cuda_versions(pybind11::module_& m) {
  m.def("cuda_versions", [] {
    int runtime = 0, driver = 0;  // where a call fails, it leaves them
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    return std::pair(runtime, driver);
  }, "The CUDA version that the module was compiled with, and the newest that the driver takes (0: there is none), "
     "each as 1000 times the major version plus 10 times the minor one.");
}

}  // namespace uqabench
