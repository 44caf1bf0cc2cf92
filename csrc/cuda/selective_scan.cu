// The selective scan's kernels for the GPU: bfloat16 or float32, parameters and states float32.
#include <cuda_runtime.h>

#include "cuda/selective_scan_launch.cuh"

namespace uqabench::cuda {
namespace {

// Launches kernels until one fails, and keeps that error.
struct Launch {
  cudaStream_t stream;
  cudaError_t& error;

  template <class T>
  void operator()(void (*kernel)(Scan<T>), int64_t blocks, int threads, int64_t shared, const Scan<T>& scan) const {
    if (error != cudaSuccess || blocks == 0) return;
    const int bytes = static_cast<int>(shared);
    constexpr int default_limit = 48 * 1024;
    if (bytes > default_limit) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return;
    kernel<<<static_cast<unsigned>(blocks), threads, bytes, stream>>>(scan);
    error = cudaGetLastError();
  }
};

template <class Run>
const char* run(const int64_t* sizes, void* const* pointers, int device, void* stream, Run launch_all) {
  int found = device;  // the caller's device stays the current one of this thread
  cudaError_t error = cudaGetDevice(&found);
  if (error == cudaSuccess && found != device) error = cudaSetDevice(device);
  const Launch launch{static_cast<cudaStream_t>(stream), error};
  if (sizes[bfloat16_at]) {
    launch_all(read_scan<Bfloat16>(sizes, pointers), launch);
  } else {
    launch_all(read_scan<float>(sizes, pointers), launch);
  }
  if (found != device) {
    const cudaError_t restored = cudaSetDevice(found);
    if (error == cudaSuccess) error = restored;
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* selective_scan_forward(const int64_t* sizes, void* const* pointers, int device, void* stream) {
  return run(sizes, pointers, device, stream, [](const auto& scan, const Launch& launch) {
    launch_forward(scan, launch);
  });
}

const char* selective_scan_backward(const int64_t* sizes, void* const* pointers, int device, void* stream) {
  return run(sizes, pointers, device, stream, [](const auto& scan, const Launch& launch) {
    launch_backward(scan, launch);
  });
}

}  // namespace uqabench::cuda
