#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/simd.h"

// The gradients of LoRA's factors: sums over the tokens of a batch of outer products of two rows, one of them
// only as wide as the rank.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

#if defined(__AVX512F__)
constexpr int kOuterRows = 8, kOuterVectors = 3;  // 24 accumulators of 32 registers
#else
constexpr int kOuterRows = 4, kOuterVectors = 2;  // 8 of 16
#endif

struct Factors {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb, rows;
  float scale;
  float* out;
  int64_t out_row, out_column;
};

/// out[i .. i + ROWS, j .. j + columns], all tokens in order. Fewer columns than lanes go with one vector.
template <int ROWS, int VECTORS>
inline void outer_block(const Factors& f, int64_t i, int64_t j, int64_t columns) {
  Vec acc[ROWS][VECTORS];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < VECTORS; v++) acc[m][v] = Vec{};
  const bool whole = columns == VECTORS * kLanes;
  for (int64_t t = 0; t < f.rows; t++) {
    const float *a = f.a + t * f.lda + i, *b = f.b + t * f.ldb + j;
    Vec bv[VECTORS];
    for (int v = 0; v < VECTORS; v++) bv[v] = whole ? load(b + v * kLanes) : load_first(b, columns);
    for (int m = 0; m < ROWS; m++)
      for (int v = 0; v < VECTORS; v++) acc[m][v] += a[m] * bv[v];
  }
  float sums[ROWS][VECTORS * kLanes];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < VECTORS; v++) store(sums[m] + v * kLanes, acc[m][v]);
  for (int m = 0; m < ROWS; m++)
    for (int64_t c = 0; c < columns; c++)
      f.out[(i + m) * f.out_row + (j + c) * f.out_column] += f.scale * sums[m][c];
}

template <int VECTORS>
inline void outer_columns(const Factors& f, int64_t m, int64_t j, int64_t columns) {
  int64_t i = 0;
  for (; i + kOuterRows <= m; i += kOuterRows) outer_block<kOuterRows, VECTORS>(f, i, j, columns);
  for (; i < m; i++) outer_block<1, VECTORS>(f, i, j, columns);
}

}  // namespace

void outer_sum(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t m, int64_t n,
               float scale, float* out, int64_t out_row, int64_t out_column) {
  const Factors f{a, lda, b, ldb, rows, scale, out, out_row, out_column};
  constexpr int64_t kWidth = kOuterVectors * kLanes;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < padded(n, kWidth) / kWidth; block++) {
    const int64_t j = block * kWidth, columns = n - j < kWidth ? n - j : kWidth;
    if (columns == kWidth) {
      outer_columns<kOuterVectors>(f, m, j, columns);
    } else {
      for (int64_t c = 0; c < columns; c += kLanes)
        outer_columns<1>(f, m, j + c, columns - c < kLanes ? columns - c : kLanes);
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
