#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/cpu/simd.h"
#include "kernels/dropout.h"

namespace peft::cpu::PEFT_KERNEL_NS {

/// 64-bit products of the low halves of `a` with a 32-bit factor.
static inline LongVec multiply_low(LongVec a, uint32_t factor) {
#if defined(__AVX512F__)
  return (LongVec)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
#elif defined(__AVX2__)
  return (LongVec)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#else
  return (a & 0xFFFFFFFFu) * factor;
#endif
}

/// kLanes Philox4x32-10 draws (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): lane l
/// has the counter {c0[l], c1, c2, c3}.
static inline void philox(WordVec c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t key0, uint32_t key1,
                          WordVec out[4]) {
  constexpr uint32_t kM0 = 0xD2511F53u, kM1 = 0xCD9E8D57u;
  WordVec x0 = c0, x1 = WordVec{} + c1, x2 = WordVec{} + c2, x3 = WordVec{} + c3;
  for (int round = 0; round < 10; round++) {
    const LongVec even0 = multiply_low((LongVec)x0, kM0), odd0 = multiply_low((LongVec)x0 >> 32, kM0);
    const LongVec even1 = multiply_low((LongVec)x2, kM1), odd1 = multiply_low((LongVec)x2 >> 32, kM1);
    const WordVec high0 = (WordVec)((even0 >> 32) | (odd0 & 0xFFFFFFFF00000000u));
    const WordVec low0 = (WordVec)((even0 & 0xFFFFFFFFu) | (odd0 << 32));
    const WordVec high1 = (WordVec)((even1 >> 32) | (odd1 & 0xFFFFFFFF00000000u));
    const WordVec low1 = (WordVec)((even1 & 0xFFFFFFFFu) | (odd1 << 32));
    x0 = high1 ^ x1 ^ key0;
    x1 = low1;
    x2 = high0 ^ x3 ^ key1;
    x3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/// 0 or 1 / (1 - rate) for columns [64 * group, 64 * group + 64) of a row; `keep` has room for 64.
static inline void dropout_group(const Dropout& d, uint32_t token, uint32_t group, float* keep) {
  WordVec lane{};
  for (int i = 0; i < kLanes; i++) lane[i] = (uint32_t)i;
  const WordVec threshold = WordVec{} + d.threshold();
  const Vec scale = splat(d.scale());
  for (uint32_t first = 0; first < 16; first += kLanes) {
    WordVec words[4];
    philox(lane + (group * 16 + first), token, d.step, d.site, (uint32_t)d.seed, (uint32_t)(d.seed >> 32),
           words);
    for (int w = 0; w < 4; w++) store(keep + 16 * w + first, words[w] < threshold ? Vec{} : scale);
  }
}

/// The keep factors of a whole row of `columns`; `keep` has room for the next multiple of 64.
static inline void dropout_row(const Dropout& d, uint32_t row, int64_t columns, float* keep) {
  const uint32_t token = d.first_token + row;
  for (int64_t j = 0; j < columns; j += 64) dropout_group(d, token, (uint32_t)(j / 64), keep + j);
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
