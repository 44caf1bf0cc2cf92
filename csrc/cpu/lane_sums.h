// Sums over the lanes of several vectors at once. Included after simd.h and <utility>, once for each instruction set.

namespace uqabench::UQ_ISA {

// One step of the reduction: a and b each hold `lanes` / (2 Width) partial sums, each spread over 2 Width lanes. The
// result holds the partial sums of both, alternating between a's and b's, each spread over Width lanes.
template <int Width, int... I>
UQ_INLINE Floats fold(Floats a, Floats b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / Width % 2 * lanes + I / (2 * Width) * 2 * Width + I % Width)...) +
         __builtin_shufflevector(a, b, (I / Width % 2 * lanes + I / (2 * Width) * 2 * Width + I % Width + Width)...);
}

// Lane i of x[0] becomes the sum of the lanes of x[i]. The other vectors are overwritten.
template <int Width = lanes / 2>
UQ_INLINE void sum_each(Floats (&x)[lanes]) {
  for (int i = 0; i < Width; ++i) x[i] = fold<Width>(x[i], x[i + Width], std::make_integer_sequence<int, lanes>());
  if constexpr (Width > 1) sum_each<Width / 2>(x);
}

}  // namespace uqabench::UQ_ISA
