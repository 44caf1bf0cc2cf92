// Elementwise functions of vectors, and partial vectors of fewer than `lanes` elements. Included after simd.h, once for
// each instruction set.

namespace uqabench::UQ_ISA {

// The first `count` elements; the other lanes are zero.
UQ_INLINE Floats load_part(const float* p, int64_t count) {
  Floats x = {};
  __builtin_memcpy(&x, p, count * sizeof(float));
  return x;
}

UQ_INLINE Floats load_part(const Bf16* p, int64_t count) {
  Halves x = {};
  __builtin_memcpy(&x, p, count * sizeof(Bf16));
  return widen(x);
}

UQ_INLINE void store_part(float* p, Floats x, int64_t count) { __builtin_memcpy(p, &x, count * sizeof(float)); }

UQ_INLINE void store_part(Bf16* p, Floats x, int64_t count) {
  const Halves halves = narrow(x);
  __builtin_memcpy(p, &halves, count * sizeof(Bf16));
}

// Calls body(get, put) for the vectors at i = 0, lanes, ... < n of arrays of float or bf16: get(p) loads the vector at
// p + i and put(p, x) stores x there. The last vector may be partial, with zeros in its other lanes.
template <class Body>
UQ_INLINE void for_each_vector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    body([i](const auto* p) { return load(p + i); }, [i](auto* p, Floats x) { store(p + i, x); });
  }
  if (const int64_t rest = n - i; rest > 0) {
    body([i, rest](const auto* p) { return load_part(p + i, rest); },
         [i, rest](auto* p, Floats x) { store_part(p + i, x, rest); });
  }
}

// The sum of the lanes, added pairwise: the upper half onto the lower one until one lane is left.
UQ_INLINE float sum_lanes(Floats x) {
  float sums[lanes];
  store(sums, x);
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

UQ_INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
UQ_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
UQ_INLINE Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

UQ_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// The absolute error is at most 1e-7.
UQ_INLINE Floats hyperbolic_tangent(Floats x) { return 1.0f - 2.0f / (1.0f + exponential(x + x)); }

// log(1 + exp(x)).
UQ_INLINE Floats softplus(Floats x) {
  const Floats e = exponential(-magnitude(x));
  // log(1 + e) = 2 artanh(s) with s = e / (2 + e) <= 1/3. Its series is cut after s^15, with an error of 1e-9.
  const Floats s = e / (2.0f + e), square = s * s;
  Floats sum = broadcast(1.0f / 15);
  for (float odd : {13.0f, 11.0f, 9.0f, 7.0f, 5.0f, 3.0f, 1.0f}) {
    sum = multiply_add(sum, square, broadcast(1.0f / odd));
  }
  return multiply_add(s + s, sum, keep(x > 0.0f, x)) + keep(x != x, x);
}

}  // namespace uqabench::UQ_ISA
