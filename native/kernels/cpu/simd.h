#pragma once

// Sixteen-lane vectors in GCC/Clang vector extensions: one source for every instruction set. This header is
// compiled once per instruction set and must not include ATen or standard templates: an inline function that
// two of those compilations share would be merged by the linker, perhaps into the one the processor lacks.

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace peft::cpu::PEFT_KERNEL_NS {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef float VecUnaligned __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t WordVec __attribute__((vector_size(4 * kLanes)));
typedef uint64_t LongVec __attribute__((vector_size(4 * kLanes)));

static inline Vec load(const float* p) { return *reinterpret_cast<const VecUnaligned*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<VecUnaligned*>(p) = v; }
static inline Vec splat(float x) { return Vec{} + x; }

/// The first n lanes of p, zero beyond; for the last columns of a row.
static inline Vec load_first(const float* p, int64_t n) {
  Vec v{};
  for (int64_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}
static inline void store_first(float* p, Vec v, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = v[i];
}

static inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

/// Lane i of the result is lane i + HALF of v, for the lanes below HALF.
template <int HALF>
static inline Vec upper(Vec v) {
  IntVec from{};
  for (int i = 0; i < kLanes; i++) from[i] = i < HALF ? i + HALF : i;
  return __builtin_shuffle(v, from);
}

/// Folds the upper half of the lanes onto the lower one until one is left.
template <int HALF, typename Fold>
static inline float fold_lanes(Vec v, Fold fold) {
  v = fold(v, upper<HALF>(v));
  if constexpr (HALF > 1) {
    return fold_lanes<HALF / 2>(v, fold);
  } else {
    return v[0];
  }
}

static inline float sum(Vec v) {
  return fold_lanes<kLanes / 2>(v, [](Vec a, Vec b) { return a + b; });
}

static inline float maximum(Vec v) {
  return fold_lanes<kLanes / 2>(v, [](Vec a, Vec b) { return max(a, b); });
}

/// 1 / x to about 1 ulp, for x that are neither tiny nor huge.
static inline Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  const Vec guess = (Vec)_mm512_rcp14_ps((__m512)x);  // a division takes three times as long
  return guess * (2.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

/// e^x to about 1 ulp. Below -87 the result is 0 or subnormal, above 88 it may be anything large.
static inline Vec exp(Vec x) {
  const Vec clamped = max(splat(-104.0f), x);  // in this order NaN stays NaN
#if defined(__AVX512F__)
  const Vec n =
      (Vec)_mm512_roundscale_ps((__m512)(clamped * 1.44269504088896341f), _MM_FROUND_TO_NEAREST_INT);
#else
  const Vec shifted =
      clamped * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23 rounds to the nearest whole number
  const Vec n = shifted - 12582912.0f;
#endif
  const Vec r = (clamped - n * 0.693145751953125f) - n * 1.428606765330187e-6f;
  Vec p = splat(0.0013814466f);  // our own least-squares fit, weighted to an even relative error of 3e-9
  p = p * r + 0.008368781f;
  p = p * r + 0.041668393f;
  p = p * r + 0.1666652f;
  p = p * r + 0.49999994f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const IntVec bits = ((IntVec)shifted << 23) + (127 << 23);  // n sits in the low bits of `shifted`
  const Vec result = p * (Vec)bits;
  return x < -87.0f ? Vec{} : (x > 88.0f ? splat(__builtin_inff()) : result);
#endif
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
