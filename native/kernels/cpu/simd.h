#pragma once

// Sixteen-lane vectors in GCC/Clang vector extensions: one source for every instruction set. This header is
// compiled once per instruction set and must not include ATen or standard templates: an inline function that
// two of those compilations share would be merged by the linker, perhaps into the one the processor lacks.

#include <stddef.h>
#include <stdint.h>

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

/// e^x to about 1 ulp. Below -87 the result is 0 (flushed), above 88 it saturates.
static inline Vec exp(Vec x) {
  const Vec clamped = x < -87.0f ? splat(-87.0f) : (x > 88.0f ? splat(88.0f) : x);
  const Vec shifted =
      clamped * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23 rounds to the nearest whole number
  const Vec n = shifted - 12582912.0f;
  const Vec r = (clamped - n * 0.693145751953125f) - n * 1.428606765330187e-6f;
  Vec p = splat(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const IntVec bits = ((IntVec)shifted << 23) + (127 << 23);  // n sits in the low bits of `shifted`
  const Vec result = p * (Vec)bits;
  return x < -87.0f ? Vec{} : result;
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
