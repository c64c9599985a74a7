#include "kernels/cpu/int8.h"

#include "kernels/cpu/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

// The passes around an int8 product: activations to 8 bits with one scale a row, and the outliers among them.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr float kRound =
    12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits

/// The low byte of every lane.
inline void store_bytes(int8_t* to, IntVec v) {
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)v));
#else
  for (int i = 0; i < kLanes; i++) to[i] = (int8_t)v[i];
#endif
}

inline bool any(IntVec mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
  int32_t bits = 0;
  for (int i = 0; i < kLanes; i++) bits |= mask[i];
  return bits != 0;
#endif
}

inline Vec magnitude(Vec x) { return (Vec)((IntVec)x & 0x7fffffff); }

/// What the rounding of one row leaves beside its codes.
struct RowFacts {
  float scale;
  int32_t sum, outliers;
};

/// One row: entries that reach the threshold become 0 and are counted.
RowFacts quantize_row(const float* x, int64_t k, float threshold, int8_t* q) {
  const int64_t whole = k / kLanes * kLanes;
  const float limit = threshold > 0 ? threshold : __builtin_inff();
  Vec largest{};
  IntVec others{};
  for (int64_t j = 0; j < whole; j += kLanes) {
    const Vec m = magnitude(load(x + j));
    const IntVec beyond = m >= limit;
    others -= beyond;
    largest = max(largest, (Vec)((IntVec)m & ~beyond));
  }
  float absmax = maximum(largest);
  RowFacts facts{};
  for (int i = 0; i < kLanes; i++) facts.outliers += others[i];
  for (int64_t j = whole; j < k; j++) {
    const float m = __builtin_fabsf(x[j]);
    if (m >= limit) {
      facts.outliers++;
    } else {
      absmax = m > absmax ? m : absmax;
    }
  }
  facts.scale = absmax / 127;
  const float inverse = absmax > 0 ? 127 / absmax : 0;
  IntVec sums{};
  for (int64_t j = 0; j < whole; j += kLanes) {
    const Vec v = load(x + j);
    const Vec kept = (Vec)((IntVec)v & (magnitude(v) < limit));
    const IntVec rounded = (IntVec)(kept * inverse + kRound) - 0x4b400000;
    store_bytes(q + j, rounded);
    sums += rounded;
  }
  for (int i = 0; i < kLanes; i++) facts.sum += sums[i];
  for (int64_t j = whole; j < k; j++) {
    q[j] = __builtin_fabsf(x[j]) < limit ? (int8_t)__builtin_rintf(x[j] * inverse) : (int8_t)0;
    facts.sum += q[j];
  }
  for (int64_t j = k; j < int8_columns(k); j++) q[j] = 0;
  return facts;
}

}  // namespace

void quantize_rows_int8(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold, int8_t* q,
                        float* scale, int32_t* sum, int32_t* outliers) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    const RowFacts facts = quantize_row(x + t * ldx, k, threshold, q + t * int8_columns(k));
    scale[t] = facts.scale;
    sum[t] = facts.sum;
    outliers[t] = facts.outliers;
  }
}

void find_outliers(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold,
                   const int32_t* begin, int32_t* column, float* value) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    const float* row = x + t * ldx;
    int32_t at = begin[t];
    const int32_t end = begin[t + 1];
    for (int64_t j = 0; at < end && j < k; j += kLanes) {
      const int64_t n = k - j < kLanes ? k - j : kLanes;
      if (n == kLanes && !any(magnitude(load(row + j)) >= threshold)) continue;
      for (int64_t i = j; i < j + n; i++) {
        if (!(__builtin_fabsf(row[i]) >= threshold)) continue;
        column[at] = (int32_t)i;
        value[at++] = row[i];
      }
    }
  }
}

void add_outliers(const int32_t* begin, const int32_t* column, const float* value, const float* columns,
                  int64_t rows, int64_t n, float* out, int64_t ldo) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    float* to = out + t * ldo;
    for (int32_t i = begin[t]; i < begin[t + 1]; i++) {
      const float* w = columns + (int64_t)column[i] * n;
      const float v = value[i];
      for (int64_t j = 0; j < n; j++) to[j] += v * w[j];
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
