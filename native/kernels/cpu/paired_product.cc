#include "kernels/cpu/paired_product.h"

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kRowBlock = 32 * kPairedRows;  // rows of A that stay in the second-level cache
constexpr float kUsualLevel = 0.0625f;           // of a panel that holds nothing but zeros
constexpr float kLeastSquares = 1e-24f, kMostSquares = 1e30f;  // sums of squares that lost nothing

constexpr int64_t blocks(int64_t k_size) { return (k_size + kPairedDepth - 1) / kPairedDepth; }

typedef float Four __attribute__((vector_size(16)));
typedef float FourUnaligned __attribute__((vector_size(16), aligned(4)));
typedef int32_t FourInts __attribute__((vector_size(16)));

inline float sum_of_squares(const float* x, int64_t n, float scale) {
  constexpr int kChains = 4;
  Vec sums[kChains] = {};
  int64_t j = 0;
  for (; j + kChains * kLanes <= n; j += kChains * kLanes) {
    for (int c = 0; c < kChains; c++) {
      const Vec v = load(x + j + c * kLanes) * scale;
      sums[c] += v * v;
    }
  }
  for (; j < n; j += kLanes) {
    const Vec v = (n - j < kLanes ? load_first(x + j, n - j) : load(x + j)) * scale;
    sums[0] += v * v;
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/// The power of two that is nearest to the root of x, for a finite x > 0.
inline float root_power(float x) {
  int32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const int32_t exponent = (bits >> 23) - 127, half = (exponent + 1) >> 1;
  const int32_t power = (half + 127) << 23;
  float result;
  __builtin_memcpy(&result, &power, sizeof result);
  return result;
}

/// The power of two that takes a row to the size of `level`; 0 for a row of zeros.
inline float row_scale(const float* x, int64_t n, float level) {
  float squares = 0;
  // Squares of what is very large or very small are out of range: such rows are measured after a first scale.
  constexpr float kFirst[] = {1, 0x1p-60f, 0x1p60f, 0x1p-110f, 0x1p110f};
  for (const float first : kFirst) {
    squares = sum_of_squares(x, n, first);
    if (squares > kLeastSquares && squares < kMostSquares) {
      const float scale = level * root_power((float)n / squares) * first;
      return scale < 0x1p-120f ? 0x1p-120f : scale > 0x1p120f ? 0x1p120f : scale;
    }
  }
  return squares == 0 ? 0.0f : 1.0f;  // 1: what is not finite stays so
}

/// A tile of rows as the product takes it: entry k of row r at to[k * ROWS + r], times the row's scale; and
/// minus the sums of x1 x2. Reads four floats beyond the tile.
template <int ROWS>
inline void pack_rows(const float* a, int64_t lda, int64_t depth, float level, float* to, float* back,
                      float* terms) {
  float scale[ROWS];
  for (int r = 0; r < ROWS; r++) {
    scale[r] = row_scale(a + r * lda, depth, level);
    back[r] = scale[r] == 0 ? 0.0f : 1 / scale[r];
  }
  int r = 0;
  for (; r + 4 <= ROWS; r += 4) {
    const float* from = a + r * lda;
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      Four row[4];
      for (int i = 0; i < 4; i++) row[i] = *(const FourUnaligned*)(from + i * lda + k) * scale[r + i];
      const Four low01 = __builtin_shuffle(row[0], row[1], (FourInts){0, 4, 1, 5}),
                 high01 = __builtin_shuffle(row[0], row[1], (FourInts){2, 6, 3, 7}),
                 low23 = __builtin_shuffle(row[2], row[3], (FourInts){0, 4, 1, 5}),
                 high23 = __builtin_shuffle(row[2], row[3], (FourInts){2, 6, 3, 7});
      float* column = to + k * ROWS + r;
      *(FourUnaligned*)column = __builtin_shuffle(low01, low23, (FourInts){0, 1, 4, 5});
      *(FourUnaligned*)(column + ROWS) = __builtin_shuffle(low01, low23, (FourInts){2, 3, 6, 7});
      *(FourUnaligned*)(column + 2 * ROWS) = __builtin_shuffle(high01, high23, (FourInts){0, 1, 4, 5});
      *(FourUnaligned*)(column + 3 * ROWS) = __builtin_shuffle(high01, high23, (FourInts){2, 3, 6, 7});
    }
    for (; k < depth; k++)
      for (int i = 0; i < 4; i++) to[k * ROWS + r + i] = from[i * lda + k] * scale[r + i];
  }
  for (; r < ROWS; r++)
    for (int64_t k = 0; k < depth; k++) to[k * ROWS + r] = a[r * lda + k] * scale[r];
  // Always four rows at once, which may be those of the next entry: one row alone would be summed otherwise.
  for (r = 0; r < ROWS; r += 4) {
    Four sums = {};
    for (int64_t g = 0; g + kGroup <= depth; g += kGroup)
      sums += *(const FourUnaligned*)(to + g * ROWS + r) * *(const FourUnaligned*)(to + (g + 1) * ROWS + r);
    for (int i = 0; i < 4 && r + i < ROWS; i++) terms[r + i] = -sums[i];
  }
}

template <int ROWS>
inline void add_single(Vec (&acc)[ROWS][kVectors], const float* a, const float* b) {
  Vec y[kVectors];
  for (int v = 0; v < kVectors; v++) y[v] = load(b + v * kLanes);
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] += a[m] * y[v];
}

/// kGroup entries: a pair, and as many singles as keep the multipliers as busy as the adders.
template <int ROWS>
inline void add_group(Vec (&acc)[ROWS][kVectors], const float* a, const float* b) {
  Vec y1[kVectors], y2[kVectors];
  for (int v = 0; v < kVectors; v++) {
    y1[v] = load(b + v * kLanes);
    y2[v] = load(b + kPanel + v * kLanes);
  }
#if defined(__AVX512F__)
  Vec y3[kVectors];
  for (int v = 0; v < kVectors; v++) y3[v] = load(b + 2 * kPanel + v * kLanes);
#endif
  for (int m = 0; m < ROWS; m++) {
    const float x1 = a[m], x2 = a[ROWS + m];
    for (int v = 0; v < kVectors; v++) acc[m][v] += (x1 + y2[v]) * (x2 + y1[v]);
#if defined(__AVX512F__)
    for (int v = 0; v < kVectors; v++) acc[m][v] += a[2 * ROWS + m] * y3[v];
#endif
  }
#if !defined(__AVX512F__)
  // Sixteen registers hold no more at once.
  for (int64_t single = 2; single < kGroup; single++)
    add_single<ROWS>(acc, a + single * ROWS, b + single * kPanel);
#endif
}

/// C [ROWS, columns] of one tile and one panel.
template <int ROWS>
inline void paired_panel(const float* a, const float* row_terms, const float* back, const float* b,
                         const float* column_terms, int64_t depth, const PanelTail& tail, float* c,
                         int64_t ldc, int64_t columns) {
  Vec acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = load(column_terms + v * kLanes) + row_terms[m];
  int64_t k = 0;
  for (; k + kGroup <= depth; k += kGroup, a += kGroup * ROWS, b += kGroup * kPanel)
    add_group<ROWS>(acc, a, b);
  for (; k < depth; k++, a += ROWS, b += kPanel) add_single<ROWS>(acc, a, b);
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] *= back[m];
  if (columns == kPanel && tail.t == nullptr && tail.part_of == nullptr) {
    for (int m = 0; m < ROWS; m++)
      for (int v = 0; v < kVectors; v++) {
        float* to = c + m * ldc + v * kLanes;
        if (tail.accumulate) acc[m][v] += load(to);
        if (tail.bias != nullptr) acc[m][v] += load(tail.bias + v * kLanes);
        store(to, acc[m][v]);
      }
    return;
  }
  finish<ROWS, kVectors>(acc, tail, c, ldc, columns);
}

}  // namespace

float panel_level(const float* panel, int64_t count) {
  const float squares = sum_of_squares(panel, count, 1);
  return squares > kLeastSquares && squares < kMostSquares ? root_power(squares / (float)count) : kUsualLevel;
}

void pair_terms(const float* packed, int64_t k_size, int64_t panels, int64_t first, int64_t last,
                float* terms) {
  for (int64_t p = first; p < last; p++) {
    for (int64_t k0 = 0; k0 < k_size; k0 += kPairedDepth) {
      const int64_t depth = k0 + kPairedDepth < k_size ? kPairedDepth : k_size - k0;
      const float* b = packed + (p * k_size + k0) * kPanel;
      Vec sums[kVectors] = {};
      for (int64_t g = 0; g + kGroup <= depth; g += kGroup)
        for (int v = 0; v < kVectors; v++)
          sums[v] += load(b + g * kPanel + v * kLanes) * load(b + (g + 1) * kPanel + v * kLanes);
      for (int v = 0; v < kVectors; v++)
        store(terms + (k0 / kPairedDepth * panels + p) * kPanel + v * kLanes, -sums[v]);
    }
  }
}

PairedRows::PairedRows(int64_t rows, int64_t k_size)
    : rows_(rows),
      k_size_(k_size),
      tiles_(rows * k_size + 4),
      terms_(blocks(k_size) * rows),
      back_(blocks(k_size) * rows) {}

Share PairedRows::share(int64_t thread, int64_t threads) const {
  const int64_t tiles = padded(rows_, kPairedRows) / kPairedRows;
  const int64_t first = tiles * thread / threads * kPairedRows,
                last = tiles * (thread + 1) / threads * kPairedRows;
  return {0, 0, first, last < rows_ ? last : rows_};
}

void PairedRows::pack(const float* a, int64_t lda, float level, int64_t first, int64_t last) {
  for (int64_t m = first; m < last; m += kPairedRows) {
    with_rows<kPairedRows>(m + kPairedRows <= last ? kPairedRows : last - m, [&]<int ROWS>() {
      for (int64_t k0 = 0; k0 < k_size_; k0 += kPairedDepth) {
        const int64_t at = k0 / kPairedDepth * rows_ + m;
        pack_rows<ROWS>(a + m * lda + k0, lda, depth(k0), level, tiles_.data + k0 * rows_ + m * depth(k0),
                        back_.data + at, terms_.data + at);
      }
    });
  }
}

void paired_range(const PairedRows& a, const float* packed, const float* terms, int64_t panels,
                  int64_t k_size, int64_t n_size, const Share& share, const Tail& tail, float* c,
                  int64_t ldc) {
  for (int64_t m0 = share.begin; m0 < share.end; m0 += kRowBlock) {
    const int64_t m1 = m0 + kRowBlock < share.end ? m0 + kRowBlock : share.end;
    for (int64_t k0 = 0; k0 < k_size; k0 += kPairedDepth) {
      const bool ends = k0 + a.depth(k0) == k_size;
      const float* column_terms = terms + k0 / kPairedDepth * panels * kPanel;
      for (int64_t p = share.first; p < share.last; p++) {
        const float* b = packed + (p * k_size + k0) * kPanel;
        const int64_t columns = n_size - p * kPanel < kPanel ? n_size - p * kPanel : kPanel;
        for (int64_t m = m0; m < m1; m += kPairedRows) {
          PanelTail part = ends ? PanelTail(tail, p, m) : PanelTail();
          part.accumulate = tail.accumulate || k0 > 0;
          with_rows<kPairedRows>(m + kPairedRows <= m1 ? kPairedRows : m1 - m, [&]<int ROWS>() {
            paired_panel<ROWS>(a.tile(m, k0), a.terms(m, k0), a.back(m, k0), b, column_terms + p * kPanel,
                               a.depth(k0), part, c + m * ldc + p * kPanel, ldc, columns);
          });
        }
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
