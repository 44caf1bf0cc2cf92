// Sums over the lanes of many vectors at once. No include guard: see simd.h, included before; <utility> too.

namespace uqabench::UQ_ISA {

// Lanes of two vectors of which each holds `lanes` / (2 Width) sums still spread over 2 Width lanes: over Width lanes
// now, a's and b's by turns.
template <int Width, int... I>
UQ_INLINE Floats fold(Floats a, Floats b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / Width % 2 * lanes + I / (2 * Width) * 2 * Width + I % Width)...) +
         __builtin_shufflevector(a, b, (I / Width % 2 * lanes + I / (2 * Width) * 2 * Width + I % Width + Width)...);
}

// x[0] = the sums of the lanes of x[0], x[1], ...
template <int Width = lanes / 2>
UQ_INLINE void sum_each(Floats (&x)[lanes]) {
  for (int i = 0; i < Width; ++i) x[i] = fold<Width>(x[i], x[i + Width], std::make_integer_sequence<int, lanes>());
  if constexpr (Width > 1) sum_each<Width / 2>(x);
}

}  // namespace uqabench::UQ_ISA
