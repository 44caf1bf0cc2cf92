// Compiles UQ_SOURCE once for each instruction set, in the namespaces uqabench::{baseline, avx2, avx512}.
//
// The including file names itself in UQ_SOURCE. In these passes over it UQ_ISA (the namespace) and UQ_LANES (floats per
// vector) are defined. It includes standard headers before this one: otherwise their inline functions could be compiled
// for a wide instruction set and then be linked into code that runs on a machine without it.
#include "cpu/bf16.h"
#include "cpu/isa.h"

#ifdef UQ_X86_DISPATCH
#include <immintrin.h>

// Functions between these two are compiled for the named instruction sets. With clang that includes lambdas and
// templates, which take the attribute where they are written, not where they are instantiated.
#define UQ_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define UQ_BEGIN_TARGET(sets) UQ_PRAGMA(clang attribute push(__attribute__((target(sets))), apply_to = function))
#define UQ_END_TARGET UQ_PRAGMA(clang attribute pop)
#define UQ_FULL_WIDTH ""
#else
#define UQ_BEGIN_TARGET(sets) UQ_PRAGMA(GCC push_options) UQ_PRAGMA(GCC target(sets))
#define UQ_END_TARGET UQ_PRAGMA(GCC pop_options)
#define UQ_FULL_WIDTH ",prefer-vector-width=512"
#endif

UQ_BEGIN_TARGET("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma" UQ_FULL_WIDTH)
#define UQ_ISA avx512
#define UQ_LANES 16
#include UQ_SOURCE
#undef UQ_ISA
#undef UQ_LANES
UQ_END_TARGET

UQ_BEGIN_TARGET("avx2,fma")
#define UQ_ISA avx2
#define UQ_LANES 8
#include UQ_SOURCE
#undef UQ_ISA
#undef UQ_LANES
UQ_END_TARGET
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
