#ifndef UQ_ISA  // the driver; the kernel below is compiled once for each instruction set
#include "cpu/rope.h"

#include <algorithm>

#include "cpu/parallel.h"
#include "cpu/rows.h"

#define UQ_SOURCE "cpu/rope.cpp"
#include "cpu/foreach_isa.h"

namespace uqabench {

template <class T>
void rope(const Rope<T>& args, T* q, T* k) {
  static constexpr decltype(&baseline::rotate<T>) kernels[] = UQ_TABLE(rotate<T>);
  const auto kernel = kernels[static_cast<int>(current_isa())];
  const int64_t* end = args.offsets + args.sequences + 1;
  const RowTasks tasks(args.offsets[args.sequences], (args.q_heads + args.k_heads) * args.width);
  parallel_for(tasks.count(), tasks.threads(args.threads), 0, [&](int64_t i, float*) {
    const int64_t* next = std::upper_bound(args.offsets, end, tasks[i].begin);  // where the next sequence starts
    kernel(args, q, k, tasks[i], next);
  });
}

template void rope(const Rope<float>&, float*, float*);
template void rope(const Rope<Bf16>&, Bf16*, Bf16*);

}  // namespace uqabench
#else

// clang-format off: in this order
#include "cpu/simd.h"
#include "cpu/functions.h"
// clang-format on

namespace uqabench::UQ_ISA {
namespace {

template <class T>
UQ_INLINE void rotate_heads(const HeadsOf<T>& from, int64_t token, int64_t heads, int64_t width, const float* cosines,
                            float sign, T* to) {
  const int64_t half = width / 2;
  const float* sines = cosines + half;
  for (int64_t head = 0; head < heads; ++head) {
    const T* first = from.at(token, head);
    T* out = to + (token * heads + head) * width;
    for_each_vector(half, [&](auto get, auto put) {
      const Floats a = get(first), b = get(first + half), c = get(cosines), s = get(sines) * sign;
      put(out, a * c - b * s);
      put(out + half, b * c + a * s);
    });
  }
}

template <class T>
void rotate(const Rope<T>& args, T* q, T* k, RowRange range, const int64_t* next) {
  const float sign = args.is_inverse ? -1.0f : 1.0f;
  for (int64_t token = range.begin; token < range.end; ++token) {
    while (*next <= token) ++next;
    const float* cosines = args.table + (token - next[-1]) * args.width;
    rotate_heads(args.q, token, args.q_heads, args.width, cosines, sign, q);
    rotate_heads(args.k, token, args.k_heads, args.width, cosines, sign, k);
  }
}

}  // namespace
}  // namespace uqabench::UQ_ISA
#endif
