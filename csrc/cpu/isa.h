// The choice of the instruction set at run time. Every kernel is compiled once for each of them (foreach_isa.h).
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)  // clang too
#define UQ_X86_DISPATCH 1
#endif

namespace uqabench {

enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

constexpr const char* isa_names[] = {"baseline", "avx2", "avx512"};

bool is_supported(Isa isa);

// The widest set this machine supports, unless set_isa chose another. "baseline" is SSE2 on x86-64, NEON on aarch64.
Isa current_isa();

// For tests and benchmarks: the set that kernels use from the next call on. It must be supported.
void set_isa(Isa isa);

}  // namespace uqabench
