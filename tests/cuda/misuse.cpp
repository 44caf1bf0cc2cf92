// Kernels that the emulation must refuse: misuse (return|barriers|shuffle|none).
#include <string>

#include "cuda/device.cuh"

using namespace uqabench;

namespace {

void lane_returns(float*) {
  if (threadIdx.x == 40) return;
  __syncthreads();
}

void lanes_wait_at_different_barriers(float*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

void half_a_warp_shuffles(float* x) {
  if (threadIdx.x % 2) x[threadIdx.x] = cuda::shuffle_xor(1.0f, 1);
}

void sums_lanes(float* x) {
  UQ_SHARED(shared);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  const float other = shared[63 - threadIdx.x];
  x[threadIdx.x] = other + cuda::shuffle_xor(other, 1);
}

}  // namespace

int main(int, char** argv) {
  const std::string name = argv[1];
  float x[64] = {};
  const auto kernel = name == "return"     ? lane_returns
                      : name == "barriers" ? lanes_wait_at_different_barriers
                      : name == "shuffle"  ? half_a_warp_shuffles
                                           : sums_lanes;
  emulation::launch(kernel, 2, 64, 64 * sizeof(float), false, static_cast<float*>(x));
  for (int i = 0; i < 64 && name == "none"; ++i) {
    if (x[i] != static_cast<float>(63 - i + 63 - (i ^ 1))) return 1;
  }
}
