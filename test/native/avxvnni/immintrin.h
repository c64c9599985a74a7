#pragma once

// In the place of the compiler's <immintrin.h>: AVX-VNNI's product of bytes on a processor with AVX2. For npm
// run check:avx512.

#undef __AVXVNNI__
#include_next <immintrin.h>
#define __AVXVNNI__ 1

#include <stdint.h>

namespace peft::emulated {

union Bytes256 {
  __m256i whole;
  uint8_t unsigned_byte[32];
  int8_t signed_byte[32];
  int32_t word[8];
};

/// Adds to every word the products of four unsigned bytes of a and four signed ones of b.
static inline __m256i dpbusd_avx_epi32(__m256i sums, __m256i a, __m256i b) {
  Bytes256 to{sums}, left{a}, right{b};
  for (int i = 0; i < 32; i++) to.word[i / 4] += left.unsigned_byte[i] * right.signed_byte[i];
  return to.whole;
}

}  // namespace peft::emulated

#define _mm256_dpbusd_avx_epi32 peft::emulated::dpbusd_avx_epi32
