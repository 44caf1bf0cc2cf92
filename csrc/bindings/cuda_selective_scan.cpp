#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "cuda/selective_scan.h"

namespace uqabench {
namespace {

using Kernels = const char* (*)(const int64_t*, void* const*, int, void*);

// Sizes, addresses and the stream come as integers. What they point to lies on the device, so that only how many there
// are can be checked.
template <Kernels kernels>
void run(const std::vector<int64_t>& sizes, const std::vector<uintptr_t>& addresses, int device, uintptr_t stream) {
  require(sizes.size() == cuda::sizes_in_all && addresses.size() == cuda::pointers_in_all,
          "the numbers of sizes and addresses do not fit this module: reinstall uqabench.");
  require(sizes[cuda::states_at] <= cuda::max_states, "there are too many states.");
  std::vector<void*> pointers;
  for (uintptr_t address : addresses) pointers.push_back(reinterpret_cast<void*>(address));
  const char* problem = nullptr;
  {
    py::gil_scoped_release release;
    problem = kernels(sizes.data(), pointers.data(), device, reinterpret_cast<void*>(stream));
  }
  if (problem) throw std::runtime_error(std::string("CUDA cannot run the selective scan: ") + problem + ".");
}

template <Kernels kernels>
void define(py::module_& m, const char* name) {
  m.def(name, run<kernels>, py::arg("sizes"), py::arg("addresses"), py::arg("device"), py::arg("stream"));
}

}  // namespace

void bind_cuda_selective_scan(py::module_& m) {
  define<cuda::selective_scan_forward>(m, "selective_scan_forward_cuda");
  define<cuda::selective_scan_backward>(m, "selective_scan_backward_cuda");
}

}  // namespace uqabench
