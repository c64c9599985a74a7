#include "kernels/cpu/panel_product.h"

// C = A W' with both operands in bfloat16 and sums in fp32, for AVX-512's product of pairs: W lies in panels
// as the fp32 product has them, but two of its columns side by side. Other processors multiply bfloat16 in
// fp32 (weights/rounded_linear.cc).

#if defined(__AVX512F__)
#include <immintrin.h>

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kDepth = 384;           // pairs of a panel that are worked on at once: 48 KiB of W
constexpr int64_t kRowBlock = 8 * kRows;  // rows of A that stay in the second-level cache meanwhile

constexpr int64_t pairs(int64_t k) { return padded(k, 2) / 2; }

/// Rounded to nearest, ties to even; NaN stays NaN.
inline uint16_t to_bfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if (x != x) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline void store_bfloat16(uint16_t* to, Vec x) {
  const WordVec bits = (WordVec)x, rounded = bits + 0x7fff + (bits >> 16 & 1u);
  const WordVec half = x == x ? rounded >> 16 : WordVec{} + 0x7fc0u;
  _mm256_storeu_si256((__m256i_u*)to, _mm512_cvtepi32_epi16((__m512i)half));
}

/// Rows of A times kPanel columns of W, into sums [ROWS, kPanel]. `a` has rows `lda` words apart and b is a
/// panel, both in words of two bfloat16.
#if defined(PEFT_EMULATED_AVX512)
template <int ROWS>
void multiply_pairs(const uint32_t* a, int64_t lda, const uint32_t* b, int64_t depth, float* sums) {
  Vec acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = Vec{};
  for (int64_t g = 0; g < depth; g++) {
    for (int v = 0; v < kVectors; v++) {
      WordVec words;
      __builtin_memcpy(&words, b + g * kPanel + v * kLanes, sizeof(words));
      const Vec first = (Vec)(words << 16), second = (Vec)(words & 0xffff0000u);
      for (int m = 0; m < ROWS; m++) {
        const WordVec both = WordVec{} + a[m * lda + g];
        acc[m][v] += (Vec)(both << 16) * first;
        acc[m][v] += (Vec)(both & 0xffff0000u) * second;
      }
    }
  }
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) store(sums + m * kPanel + v * kLanes, acc[m][v]);
}
#else
// A function of its own: the rest of this file must run where the instruction is missing.
template <int ROWS>
__attribute__((target("avx512bf16"))) void multiply_pairs(const uint32_t* a, int64_t lda, const uint32_t* b,
                                                          int64_t depth, float* sums) {
  __m512 acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = _mm512_setzero_ps();
  for (int64_t g = 0; g < depth; g++) {
    __m512bh w[kVectors];
    for (int v = 0; v < kVectors; v++) w[v] = (__m512bh)_mm512_loadu_si512(b + g * kPanel + v * kLanes);
    for (int m = 0; m < ROWS; m++) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[m * lda + g]);
      for (int v = 0; v < kVectors; v++) acc[m][v] = _mm512_dpbf16_ps(acc[m][v], x, w[v]);
    }
  }
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(sums + m * kPanel + v * kLanes, acc[m][v]);
}
#endif

template <int ROWS>
inline void pairs_block(const uint32_t* a, int64_t lda, const uint32_t* b, int64_t depth,
                        const PanelTail& tail, float* c, int64_t ldc, int64_t columns) {
  alignas(64) float sums[ROWS * kPanel];
  multiply_pairs<ROWS>(a, lda, b, depth, sums);
  Vec acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = load(sums + m * kPanel + v * kLanes);
  finish<ROWS, kVectors>(acc, tail, c, ldc, columns);
}

}  // namespace

bool has_fast_bfloat16() {
#if defined(PEFT_EMULATED_AVX512)
  return true;
#else
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#endif
}

int64_t bfloat16_row(int64_t k) { return 2 * pairs(k); }

void pack_bfloat16(const float* w, int64_t row_stride, int64_t column_stride, int64_t n, int64_t k,
                   uint16_t* packed) {
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < padded(n, kPanel) / kPanel; p++) {
    uint16_t* to = packed + p * kPanel * bfloat16_row(k);
    for (int64_t lane = 0; lane < kPanel; lane++) {
      const int64_t row = p * kPanel + lane;
      for (int64_t j = 0; j < bfloat16_row(k); j++) {
        const float value = row < n && j < k ? w[row * row_stride + j * column_stride] : 0.0f;
        to[(j / 2 * kPanel + lane) * 2 + j % 2] = to_bfloat16(value);
      }
    }
  }
}

void unpack_bfloat16(const uint16_t* packed, int64_t n, int64_t k, float* w) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < n; row++) {
    const uint16_t* from = packed + row / kPanel * kPanel * bfloat16_row(k);
    for (int64_t j = 0; j < k; j++) {
      const uint32_t bits = (uint32_t)from[(j / 2 * kPanel + row % kPanel) * 2 + j % 2] << 16;
      __builtin_memcpy(w + row * k + j, &bits, 4);
    }
  }
}

void round_rows_bfloat16(const float* x, int64_t ldx, int64_t rows, int64_t k, uint16_t* out) {
  const int64_t whole = k / kLanes * kLanes;
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    const float* row = x + t * ldx;
    uint16_t* to = out + t * bfloat16_row(k);
    for (int64_t j = 0; j < whole; j += kLanes) store_bfloat16(to + j, load(row + j));
    for (int64_t j = whole; j < bfloat16_row(k); j++) to[j] = j < k ? to_bfloat16(row[j]) : (uint16_t)0;
  }
}

void product_bfloat16(const uint16_t* a, const uint16_t* packed, int64_t rows, int64_t k, int64_t n,
                      const Tail& tail, float* c, int64_t ldc) {
  const int64_t panels = padded(n, kPanel) / kPanel, depth = pairs(k);
  const auto *words = (const uint32_t*)a, *weights = (const uint32_t*)packed;
#pragma omp parallel
  {
    const Share share = rows_or_panels(panels, rows);
    for (int64_t m0 = share.begin; m0 < share.end; m0 += kRowBlock) {
      const int64_t m1 = m0 + kRowBlock < share.end ? m0 + kRowBlock : share.end;
      for (int64_t g0 = 0; g0 < depth; g0 += kDepth) {
        const int64_t some = g0 + kDepth < depth ? kDepth : depth - g0;
        for (int64_t p = share.first; p < share.last; p++) {
          const uint32_t* b = weights + (p * depth + g0) * kPanel;
          const int64_t columns = n - p * kPanel < kPanel ? n - p * kPanel : kPanel;
          for (int64_t m = m0; m < m1; m += kRows) {
            PanelTail part = g0 + some == depth ? PanelTail(tail, p, m) : PanelTail();
            part.accumulate = tail.accumulate || g0 > 0;
            with_rows<kRows>(m + kRows <= m1 ? kRows : m1 - m, [&]<int ROWS>() {
              pairs_block<ROWS>(words + m * depth + g0, depth, b, some, part, c + m * ldc + p * kPanel, ldc,
                                columns);
            });
          }
        }
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS

#endif
