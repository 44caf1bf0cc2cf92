// Compiles UQ_SOURCE once for each instruction set, in the namespaces uqabench::{baseline, avx2, avx512}.
//
// The including file names itself in UQ_SOURCE; on these passes UQ_ISA (the namespace) and UQ_LANES (floats a vector)
// are defined. Standard headers come before, so none of their inline functions is compiled for a wide instruction set
// and then linked into code for a narrow one.
#include "cpu/isa.h"

#ifdef UQ_X86_DISPATCH
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#define UQ_ISA avx512
#define UQ_LANES 16
#include UQ_SOURCE
#undef UQ_ISA
#undef UQ_LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define UQ_ISA avx2
#define UQ_LANES 8
#include UQ_SOURCE
#undef UQ_ISA
#undef UQ_LANES
#pragma GCC pop_options
#endif

#define UQ_ISA baseline
#define UQ_LANES 4
#include UQ_SOURCE
#undef UQ_ISA
#undef UQ_LANES

// The function `name` of each namespace, indexed by Isa.
#ifdef UQ_X86_DISPATCH
#define UQ_TABLE(name) {&baseline::name, &avx2::name, &avx512::name}
#else
#define UQ_TABLE(name) {&baseline::name, &baseline::name, &baseline::name}
#endif
