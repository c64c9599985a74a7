#pragma once

// In the place of the compiler's <immintrin.h>: the AVX-512 instructions that native/kernels/cpu asks for by
// name, on a processor with AVX2. The rest of the kernels is vectors of 64 bytes, which the compiler cuts in
// two. For npm run check:avx512.

// The compiler's header must not believe that it may use what the processor lacks.
#undef __AVX512F__
#undef __AVX512VNNI__
#include_next <immintrin.h>
#define __AVX512F__ 1
#define __AVX512VNNI__ 1

#include <stdint.h>

namespace peft::emulated {

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Words __attribute__((vector_size(64)));
typedef uint64_t Longs __attribute__((vector_size(64)));

/// A register as lanes of one kind.
template <typename T>
union Lanes512 {
  __m512i whole;
  T lane[64 / sizeof(T)];
};
union Halves {
  __m512 whole;
  __m256 half[2];
};
union Lanes256 {
  __m256i whole;
  uint16_t lane[16];
};
union Lanes128 {
  __m128i whole;
  uint8_t lane[16];
};

static inline __m256i cvtepi32_epi16(__m512i v) {
  Lanes256 to;
  for (int i = 0; i < 16; i++) to.lane[i] = (uint16_t)((Words)v)[i];
  return to.whole;
}

static inline __m128i cvtepi32_epi8(__m512i v) {
  Lanes128 to;
  for (int i = 0; i < 16; i++) to.lane[i] = (uint8_t)((Words)v)[i];
  return to.whole;
}

static inline __m512i cvtepu16_epi32(__m256i v) {
  const Lanes256 from{v};
  Words to;
  for (int i = 0; i < 16; i++) to[i] = from.lane[i];
  return (__m512i)to;
}

static inline __m512i cvtepu8_epi32(__m128i v) {
  const Lanes128 from{v};
  Words to;
  for (int i = 0; i < 16; i++) to[i] = from.lane[i];
  return (__m512i)to;
}

static inline __m512 cvtph_ps(__m256i v) {
  Halves to;
  to.half[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(v));
  to.half[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
  return to.whole;
}

static inline unsigned test_epi32_mask(__m512i a, __m512i b) {
  unsigned mask = 0;
  for (int i = 0; i < 16; i++) mask |= (((Words)a)[i] & ((Words)b)[i]) != 0 ? 1u << i : 0;
  return mask;
}

static inline __m512i slli_epi32(__m512i v, int bits) { return (__m512i)((Words)v << bits); }

static inline __m512i set1_epi64(int64_t x) { return (__m512i)(Longs{} + (uint64_t)x); }

static inline __m512i mul_epu32(__m512i a, __m512i b) {
  return (__m512i)(((Longs)a & 0xffffffffu) * ((Longs)b & 0xffffffffu));
}

/// Sums of four products of an unsigned and a signed byte.
static inline __m512i dpbusd_epi32(__m512i sums, __m512i a, __m512i b) {
  Lanes512<int32_t> to{sums};
  const Lanes512<uint8_t> x{a};
  const Lanes512<int8_t> y{b};
  for (int i = 0; i < 64; i++) to.lane[i / 4] += x.lane[i] * y.lane[i];
  return to.whole;
}

/// As far off as the instruction may be, 2^-14, so that who trusts it too far is seen.
static inline __m512 rcp14_ps(__m512 x) { return (__m512)(1.00006f / (Floats)x); }

static inline __m512 to_nearest(__m512 x) {
  Halves v{x};
  for (__m256& half : v.half) half = _mm256_round_ps(half, _MM_FROUND_TO_NEAREST_INT);
  return v.whole;
}

/// x 2^floor(n)
static inline __m512 scalef_ps(__m512 x, __m512 n) {
  Floats to;
  for (int i = 0; i < 16; i++) {
    const float power = __builtin_floorf(((Floats)n)[i]);
    const int bounded = power < -400 ? -400 : power > 400 ? 400 : (int)power;
    to[i] = power != power ? power : __builtin_ldexpf(((Floats)x)[i], bounded);
  }
  return (__m512)to;
}

}  // namespace peft::emulated

#undef _mm512_roundscale_ps
#undef _mm512_scalef_ps
#define _mm512_cvtepi32_epi16 peft::emulated::cvtepi32_epi16
#define _mm512_cvtepi32_epi8 peft::emulated::cvtepi32_epi8
#define _mm512_cvtepu16_epi32 peft::emulated::cvtepu16_epi32
#define _mm512_cvtepu8_epi32 peft::emulated::cvtepu8_epi32
#define _mm512_cvtph_ps peft::emulated::cvtph_ps
#define _mm512_test_epi32_mask peft::emulated::test_epi32_mask
#define _mm512_slli_epi32 peft::emulated::slli_epi32
#define _mm512_set1_epi64 peft::emulated::set1_epi64
#define _mm512_mul_epu32 peft::emulated::mul_epu32
#define _mm512_dpbusd_epi32 peft::emulated::dpbusd_epi32
#define _mm512_rcp14_ps peft::emulated::rcp14_ps
#define _mm512_roundscale_ps(x, mode) peft::emulated::to_nearest(x)
#define _mm512_scalef_ps peft::emulated::scalef_ps
