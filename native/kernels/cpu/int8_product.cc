#include "kernels/cpu/int8.h"
#include "kernels/cpu/panel_product.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// C = A W' in whole numbers: both operands are bytes, sums are exact in 32 bits, and the way back to fp32 is
// part of the store.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
/// acc[i] += the dot product of the four unsigned bytes of weights[i] and the four signed bytes of a.
inline IntVec dot(IntVec acc, WordVec weights, int32_t a) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)weights, (__m512i)(IntVec{} + a));
#else
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)weights, (__m256i)(IntVec{} + a));
#endif
}

/// Both operands as the innermost loop takes them: VNNI multiplies the bytes as they are stored.
class Words {
 public:
  Words(const Int8Rows& a, int64_t columns, Share share) : a_(a), rows_(share.end - share.begin) {
    (void)columns;
  }

  int64_t block() const { return rows_; }
  int64_t row_words() const { return a_.ld / 4; }
  const int32_t* rows(int64_t begin, int64_t) const { return (const int32_t*)(a_.codes + begin * a_.ld); }
  const uint32_t* panel(const uint8_t* codes) const { return (const uint32_t*)codes; }

 private:
  const Int8Rows& a_;
  int64_t rows_;
};
#else
typedef int16_t ShortVec __attribute__((vector_size(4 * kLanes)));

/// acc[i] += the dot product of the two 16-bit numbers of weights[i] and those of a.
inline IntVec dot(IntVec acc, WordVec weights, int32_t a) {
  const IntVec both = IntVec{} + a;
#if defined(__AVX2__)
  return acc + (IntVec)_mm256_madd_epi16((__m256i)weights, (__m256i)both);
#elif defined(__SSE2__)
  return acc + (IntVec)_mm_madd_epi16((__m128i)weights, (__m128i)both);
#else
  const IntVec w = (IntVec)weights;
  return acc + (w << 16 >> 16) * (both << 16 >> 16) + (w >> 16) * (both >> 16);
#endif
}

/// Both operands as the innermost loop takes them: bytes are widened to 16 bits, once for many products. Of
/// the words of four bytes that a row or a panel has, bytes 0 and 2 of each come first, then 1 and 3 of each.
class Words {
 public:
  Words(const Int8Rows& a, int64_t columns, Share share)
      : a_(a),
        groups_(columns / 4),
        block_(block_of(share.end - share.begin)),
        rows_(block_ * row_words()),
        panel_(kPanel * row_words()) {}

  int64_t block() const { return block_; }
  int64_t row_words() const { return 2 * groups_; }

  const int32_t* rows(int64_t begin, int64_t end) const {
    for (int64_t t = begin; t < end; t++) {
      const int8_t* from = a_.codes + t * a_.ld;
      auto* to = (int32_t*)rows_.data + (t - begin) * row_words();
      int64_t g = 0;
      for (; g + kLanes <= groups_; g += kLanes) {
        ShortVec four;
        __builtin_memcpy(&four, from + 4 * g, sizeof four);
        const ShortVec even = four << 8 >> 8, odd = four >> 8;
        __builtin_memcpy(to + g, &even, sizeof even);
        __builtin_memcpy(to + groups_ + g, &odd, sizeof odd);
      }
      for (; g < groups_; g++) {
        const int8_t* four = from + 4 * g;
        to[g] = pair(four[0], four[2]);
        to[groups_ + g] = pair(four[1], four[3]);
      }
    }
    return (const int32_t*)rows_.data;
  }

  const uint32_t* panel(const uint8_t* codes) const {
    auto* to = (uint32_t*)panel_.data;
    for (int64_t i = 0; i < groups_ * kPanel; i += kLanes) {
      WordVec four;
      __builtin_memcpy(&four, codes + 4 * i, sizeof four);
      const WordVec even = four & 0x00ff00ffu, odd = four >> 8 & 0x00ff00ffu;
      __builtin_memcpy(to + i, &even, sizeof even);
      __builtin_memcpy(to + groups_ * kPanel + i, &odd, sizeof odd);
    }
    return to;
  }

 private:
  static constexpr int64_t kBlockWords = 48 * 1024;  // 192 KiB of rows stay in the second-level cache

  static int32_t pair(int8_t low, int8_t high) {
    return (int32_t)((uint32_t)(uint16_t)low | (uint32_t)(uint16_t)high << 16);
  }
  int64_t block_of(int64_t rows) const {
    const int64_t fit = kBlockWords / row_words() / kRows * kRows, least = fit > kRows ? fit : kRows;
    return rows < least ? rows : least;
  }

  const Int8Rows& a_;
  int64_t groups_, block_;
  Scratch rows_, panel_;
};
#endif

/// C [ROWS, kPanel] of rows `row` and on, whose words are at `a`.
template <int ROWS>
inline void int8_panel(const Int8Rows& rows, int64_t row, const int32_t* a, const uint32_t* b, int64_t words,
                       const float* scale, const PanelTail& tail, float* c, int64_t ldc, int64_t columns) {
  IntVec acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = IntVec{};
  for (int64_t i = 0; i < words; i++) {
    WordVec bv[kVectors];
    for (int v = 0; v < kVectors; v++)
      __builtin_memcpy(&bv[v], b + (i * kVectors + v) * kLanes, sizeof bv[v]);
    for (int m = 0; m < ROWS; m++)
      for (int v = 0; v < kVectors; v++) acc[m][v] = dot(acc[m][v], bv[v], a[m * words + i]);
  }
  Vec out[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++) {
    const int32_t shift = kInt8Shift * rows.sum[row + m];
    for (int v = 0; v < kVectors; v++)
      out[m][v] =
          __builtin_convertvector(acc[m][v] - shift, Vec) * rows.scale[row + m] * load(scale + v * kLanes);
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
    const Words words(a, columns, share);
    for (int64_t m0 = share.begin; m0 < share.end; m0 += words.block()) {
      const int64_t m1 = m0 + words.block() < share.end ? m0 + words.block() : share.end;
      const int32_t* rows = words.rows(m0, m1);
      for (int64_t p = share.first; p < share.last; p++) {
        const uint32_t* b = words.panel((const uint8_t*)w.codes + p * kPanel * columns);
        const int64_t width = w.n - p * kPanel < kPanel ? w.n - p * kPanel : kPanel;
        for (int64_t m = m0; m < m1; m += kRows) {
          const PanelTail part(tail, p, m);
          with_rows<kRows>(m + kRows <= m1 ? kRows : m1 - m, [&]<int ROWS>() {
            int8_panel<ROWS>(a, m, rows + (m - m0) * words.row_words(), b, words.row_words(),
                             w.scale + p * kPanel, part, c + m * ldc + p * kPanel, ldc, width);
          });
        }
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
