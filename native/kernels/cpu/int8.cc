#include "kernels/cpu/int8.h"

#include "kernels/cpu/simd.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

// The passes around an int8 product: activations to 8 bits with one scale a row, and the outliers among them.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr float kRound =
    12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits

/// The lanes of v, which are whole numbers from -128 to 127, as bytes.
inline void store_bytes(int8_t* to, IntVec v) {
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
  const __m256i whole = (__m256i)v;
  const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(half, half));
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

inline IntVec larger(IntVec a, IntVec b) { return a > b ? a : b; }

/// The bits of the largest magnitude of a row, which order as the numbers do; NaN is above all of them.
int32_t largest_bits(const float* x, int64_t k) {
  constexpr int kChains = 4;  // a maximum takes as long as it takes to begin four
  IntVec largest[kChains] = {};
  int64_t j = 0;
  for (; j + kChains * kLanes <= k; j += kChains * kLanes)
    for (int c = 0; c < kChains; c++)
      largest[c] = larger(largest[c], (IntVec)magnitude(load(x + j + c * kLanes)));
  for (; j + kLanes <= k; j += kLanes) largest[0] = larger(largest[0], (IntVec)magnitude(load(x + j)));
  if (j < k) largest[1] = larger(largest[1], (IntVec)magnitude(load_first(x + j, k - j)));
  const IntVec all = larger(larger(largest[0], largest[1]), larger(largest[2], largest[3]));
  int32_t most = 0;
  for (int i = 0; i < kLanes; i++) most = all[i] > most ? all[i] : most;
  return most;
}

/// The largest magnitude of a row that is below the limit, and how many are not.
float largest_below(const float* x, int64_t k, float limit, int32_t* outliers) {
  Vec largest{};
  IntVec others{};
  for (int64_t j = 0; j < k; j += kLanes) {
    const Vec m = magnitude(j + kLanes <= k ? load(x + j) : load_first(x + j, k - j));
    const IntVec beyond = m >= limit;
    others -= beyond;
    largest = max(largest, (Vec)((IntVec)m & ~beyond));
  }
  for (int i = 0; i < kLanes; i++) *outliers += others[i];
  return maximum(largest);
}

/// Codes of a row, and their sum.
template <bool OUTLIERS>
int32_t round_row(const float* x, int64_t k, float limit, float inverse, int8_t* q) {
  const auto code = [&](Vec v) {
    if constexpr (OUTLIERS) v = (Vec)((IntVec)v & (magnitude(v) < limit));
    return (IntVec)(v * inverse + kRound) - 0x4b400000;
  };
  IntVec sums{};
  int64_t j = 0;
  for (; j + kLanes <= k; j += kLanes) {
    const IntVec rounded = code(load(x + j));
    store_bytes(q + j, rounded);
    sums += rounded;
  }
  if (j < k) {
    const IntVec rounded = code(load_first(x + j, k - j));
    sums += rounded;
    for (int64_t i = j; i < k; i++) q[i] = (int8_t)rounded[i - j];
  }
  int32_t sum = 0;
  for (int i = 0; i < kLanes; i++) sum += sums[i];
  return sum;
}

/// One row: entries that reach the threshold become 0 and are counted.
RowFacts quantize_row(const float* x, int64_t k, float threshold, int8_t* q) {
  const float limit = threshold > 0 ? threshold : __builtin_inff();
  RowFacts facts{};
  const int32_t bits = largest_bits(x, k);
  float absmax;
  __builtin_memcpy(&absmax, &bits, sizeof absmax);
  const bool none = absmax < limit;  // of a row with NaN neither
  if (!none) absmax = largest_below(x, k, limit, &facts.outliers);
  facts.scale = absmax / 127;
  const float inverse = absmax > 0 ? 127 / absmax : 0;
  facts.sum = none ? round_row<false>(x, k, limit, inverse, q) : round_row<true>(x, k, limit, inverse, q);
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
