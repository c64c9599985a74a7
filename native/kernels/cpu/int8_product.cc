#include "kernels/cpu/int8.h"
#include "kernels/cpu/panel_product.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// C = A W' in whole numbers: both operands are bytes, sums are exact in 32 bits, and the way back to fp32 is
// part of the store.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

/// acc[i] += the dot product of the four unsigned bytes of weights[i] and the four signed bytes of a.
inline IntVec dot_bytes(IntVec acc, WordVec weights, int32_t a) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)weights, (__m512i)(IntVec{} + a));
#elif defined(__AVX2__)
  // Bytes 0 and 2 of each word, then 1 and 3, as 16-bit numbers.
  const __m256i w = (__m256i)weights, x = _mm256_set1_epi32(a);
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
  return acc + (IntVec)even + (IntVec)odd;
#else
  for (int i = 0; i < 4; i++)
    acc += (IntVec)(weights >> (8 * i) & 255u) * (int32_t)(int8_t)((uint32_t)a >> (8 * i));
  return acc;
#endif
}

template <int ROWS>
inline void int8_panel(const Int8Rows& a, int64_t row, const uint8_t* b, int64_t groups, const float* scale,
                       const PanelTail& tail, float* c, int64_t ldc, int64_t columns) {
  IntVec acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = IntVec{};
  const int8_t* codes = a.codes + row * a.ld;
  for (int64_t g = 0; g < groups; g++) {
    WordVec bv[kVectors];
    for (int v = 0; v < kVectors; v++)
      __builtin_memcpy(&bv[v], b + (g * kVectors + v) * 4 * kLanes, 4 * kLanes);
    for (int m = 0; m < ROWS; m++) {
      int32_t four;
      __builtin_memcpy(&four, codes + m * a.ld + 4 * g, 4);
      for (int v = 0; v < kVectors; v++) acc[m][v] = dot_bytes(acc[m][v], bv[v], four);
    }
  }
  Vec out[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++) {
    const int32_t shift = kInt8Shift * a.sum[row + m];
    for (int v = 0; v < kVectors; v++)
      out[m][v] =
          __builtin_convertvector(acc[m][v] - shift, Vec) * a.scale[row + m] * load(scale + v * kLanes);
  }
  finish<ROWS, kVectors>(out, tail, c, ldc, columns);
}

}  // namespace

int64_t int8_row_bytes(int64_t k) { return int8_columns(k); }

void store_int8(const int8_t* codes, int64_t n, int64_t k, uint8_t* stored) {
  const int64_t columns = int8_columns(k);
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < padded(n, kPanel) / kPanel; p++) {
    uint8_t* to = stored + p * kPanel * columns;
    for (int64_t lane = 0; lane < kPanel; lane++) {
      const int64_t row = p * kPanel + lane;
      for (int64_t j = 0; j < columns; j++) {
        const int code = row < n && j < k ? codes[row * k + j] : 0;
        to[j / 4 * 4 * kPanel + 4 * lane + j % 4] = (uint8_t)(code + kInt8Shift);
      }
    }
  }
}

void product_int8(const Int8Rows& a, const StoredWeight& w, const Tail& tail, float* c, int64_t ldc) {
  const int64_t panels = padded(w.n, kPanel) / kPanel, columns = int8_columns(w.k);
#pragma omp parallel
  {
    const Share share = rows_or_panels(panels, a.rows);
    for (int64_t p = share.first; p < share.last; p++) {
      const uint8_t* b = (const uint8_t*)w.codes + p * kPanel * columns;
      const float* scale = w.scale + p * kPanel;
      const int64_t width = w.n - p * kPanel < kPanel ? w.n - p * kPanel : kPanel;
      for (int64_t m = share.begin; m < share.end; m += kRows) {
        const PanelTail part(tail, p, m);
        with_rows<kRows>(m + kRows <= share.end ? kRows : share.end - m, [&]<int ROWS>() {
          int8_panel<ROWS>(a, m, b, columns / 4, scale, part, c + m * ldc + p * kPanel, ldc, width);
        });
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
