#pragma once

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels/cpu/simd.h"

namespace peft::cpu::PEFT_KERNEL_NS {

static inline float half_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
  uint32_t bits;
  if (magnitude >= 0x7c00) {
    bits = 0x7f800000 | magnitude << 13;
  } else if (magnitude >= 0x0400) {
    bits = (magnitude << 13) + ((127 - 15) << 23);
  } else {  // zero or subnormal: magnitude * 2^-24
    const float value = (float)magnitude * 5.9604644775390625e-8f;
    __builtin_memcpy(&bits, &value, 4);
  }
  bits |= sign;
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}

/// kLanes values of fp16.
static inline Vec load_half(const uint16_t* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
  Vec v{};
  for (int i = 0; i < kLanes; i++) v[i] = half_to_float(p[i]);
  return v;
#endif
}

/// kLanes values of bfloat16.
static inline Vec load_bfloat16(const uint16_t* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif defined(__F16C__)
  return (Vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
  WordVec bits{};
  for (int i = 0; i < kLanes; i++) bits[i] = (uint32_t)p[i] << 16;
  return (Vec)bits;
#endif
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
