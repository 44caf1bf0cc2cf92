// Vectors of UQ_LANES floats. This header and those that build on it have no include guard: a kernel's file includes
// them in each of the passes that foreach_isa.h makes over it, one for each instruction set.
#define UQ_INLINE inline __attribute__((always_inline))
#define UQ_LAMBDA __attribute__((always_inline))

namespace uqabench::UQ_ISA {

constexpr int lanes = UQ_LANES;

typedef float Floats __attribute__((vector_size(UQ_LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(UQ_LANES * 4)));  // also a mask: -1 where a comparison holds, else 0
typedef uint32_t Words __attribute__((vector_size(UQ_LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(UQ_LANES * 2)));

UQ_INLINE Floats load(const float* p) {
  Floats x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

UQ_INLINE Ints load(const int32_t* p) {
  Ints x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

UQ_INLINE void store(float* p, Floats x) { __builtin_memcpy(p, &x, sizeof x); }
UQ_INLINE void store(int32_t* p, Ints x) { __builtin_memcpy(p, &x, sizeof x); }

// With intrinsics, because GCC 12 makes five instructions of __builtin_convertvector.
UQ_INLINE Floats widen(Halves x) {
#if UQ_LANES == 16
  return (Floats)((Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)x) << 16);
#elif UQ_LANES == 8
  return (Floats)((Words)_mm256_cvtepu16_epi32((__m128i)x) << 16);
#else
  return (Floats)(__builtin_convertvector(x, Words) << 16);
#endif
}

// Rounds to the nearest bf16, ties to even; NaN becomes a quiet NaN.
UQ_INLINE Halves narrow(Floats x) {
  const Words bits = (Words)x, rounded = bits + ((bits >> 16) & 1) + 0x7fff;
  const Words upper = (x == x ? rounded : Words{} + 0x7fc00000) >> 16;
#if UQ_LANES == 16
  return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)upper);
#elif UQ_LANES == 8
  const auto both = (__m256i)upper;
  return (Halves)_mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
#else
  return __builtin_convertvector(upper, Halves);
#endif
}

UQ_INLINE Floats load(const Bf16* p) {
  Halves x;
  __builtin_memcpy(&x, p, sizeof x);
  return widen(x);
}

UQ_INLINE void store(Bf16* p, Floats x) {
  const Halves halves = narrow(x);
  __builtin_memcpy(p, &halves, sizeof halves);
}

UQ_INLINE Floats broadcast(float x) { return x - Floats{}; }

// a * b + c. The compiler fuses nothing by itself (-ffp-contract=off), so that every element of a tile is rounded
// alike: equal inputs give equal results.
UQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if UQ_LANES == 16
  return _mm512_fmadd_ps(a, b, c);
#elif UQ_LANES == 8
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// table[index[0]], table[index[1]], ...
UQ_INLINE Floats gather(const float* table, const uint8_t* index) {
  typedef uint8_t Bytes __attribute__((vector_size(UQ_LANES)));
  Bytes bytes;
  __builtin_memcpy(&bytes, index, sizeof bytes);
  const Ints wide = __builtin_convertvector(bytes, Ints);
#if UQ_LANES == 16
  return _mm512_mask_i32gather_ps(Floats{}, 0xffff, (__m512i)wide, table, 4);
#elif UQ_LANES == 8
  return _mm256_i32gather_ps(table, (__m256i)wide, 4);
#else
  return Floats{table[wide[0]], table[wide[1]], table[wide[2]], table[wide[3]]};
#endif
}

// The causal mask: -1 in the lanes whose query, `query` + lane, is not before key j.
UQ_INLINE Ints causal(int64_t query, int64_t j) {
  Ints lane;
  for (int i = 0; i < lanes; ++i) lane[i] = i;
  return lane >= static_cast<int32_t>(j > query ? j - query : 0);
}

// x where `mask` is -1, and 0 where it is 0.
UQ_INLINE Floats keep(Ints mask, Floats x) { return (Floats)(mask & (Ints)x); }

// exp(x), within 2 units in the last place; x is clamped to [-87, 87]. NaN gives NaN.
UQ_INLINE Floats exponential(Floats x) {
  x = x > 87.0f ? broadcast(87.0f) : x;
  x = x < -87.0f ? broadcast(-87.0f) : x;
  // x = n ln 2 + r with |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low
  // bits.
  const Floats shifted = multiply_add(x, broadcast(1.44269504f), broadcast(12582912.0f));
  const Floats n = shifted - 12582912.0f;
  Floats r = multiply_add(n, broadcast(-0.693145752f), x);
  r = multiply_add(n, broadcast(-1.42860677e-6f), r);
  // The Taylor polynomial of degree 7: its error at ln(2) / 2 is 5e-9.
  Floats y = multiply_add(r, broadcast(1.0f / 5040), broadcast(1.0f / 720));
  y = multiply_add(y, r, broadcast(1.0f / 120));
  y = multiply_add(y, r, broadcast(1.0f / 24));
  y = multiply_add(y, r, broadcast(1.0f / 6));
  y = multiply_add(y, r, broadcast(0.5f));
  y = multiply_add(y, r, broadcast(1.0f));
  y = multiply_add(y, r, broadcast(1.0f));
  y = (Floats)((Ints)y + ((Ints)shifted << 23));  // times 2^n: n is added to the exponent
  return x == x ? y : x;
}

// The dot product of a and b.
UQ_INLINE float dot(const float* a, const float* b, int64_t n) {
  Floats sums = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sums = multiply_add(load(a + i), load(b + i), sums);
  float sum = 0.0f;
  for (int lane = 0; lane < lanes; ++lane) sum += sums[lane];
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace uqabench::UQ_ISA
