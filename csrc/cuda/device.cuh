// What the kernels need of the device beyond C++: fast functions, bfloat16, shared memory, shuffles, barriers. Without
// nvcc, tests/cuda/emulate.h provides the same and runs the kernels on the CPU, lane by lane.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>

#include <cstdint>

#define UQ_SHARED(name) extern __shared__ __align__(16) float name[]

namespace uqabench::cuda {

using Bfloat16 = __nv_bfloat16;

// One instruction each, of the multiprocessor's special function units: 16 results a clock, an eighth of its
// multiply-adds. Relative errors around 2e-7; results below 1e-38 are zero.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float log_of_two(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float load(const float* from) { return __ldg(from); }
__device__ inline float load(const Bfloat16* from) { return __bfloat162float(__ldg(from)); }
__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(Bfloat16* to, float x) { *to = __float2bfloat16(x); }

__device__ inline float shuffle_xor(float x, int lane_mask) { return __shfl_xor_sync(0xffffffffu, x, lane_mask); }

}  // namespace uqabench::cuda

#else

#include "emulate.h"

#endif

namespace uqabench::cuda {

constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

__device__ inline float sigmoid(float x) { return reciprocal(1.0f + power_of_two(-x * log2_e)); }

// log(1 + e^x). Where e^-|x| is small, a short series is used, because 1 + e^-|x| would lose its digits.
__device__ inline float softplus(float x) {
  const float e = power_of_two(-fabsf(x) * log2_e);
  const float series = e * (1.0f - e * (0.5f - e * (0.333333333f - 0.25f * e)));
  const float log = e < 0.03125f ? series : log_of_two(1.0f + e) * ln_2;
  return fmaxf(x, 0.0f) + log;  // NaN by way of log
}

// The derivative of softplus where its value is s: 1 - e^-s.
__device__ inline float softplus_derivative(float s) {
  const float series = s * (1.0f - s * (0.5f - s * (0.166666667f - 0.0416666667f * s)));
  return s < 0.03125f ? series : 1.0f - power_of_two(-s * log2_e);
}

}  // namespace uqabench::cuda
