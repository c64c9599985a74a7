#pragma once

#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/simd.h"

namespace peft::cpu::PEFT_KERNEL_NS {

/// One operand of a small product that is read element by element: element (m, k) at p[m * row + k * column].
struct Strided {
  const float* p;
  int64_t row;
  int64_t column;
};

/// C[ROWS, kLanes * VECS] (+)= A * B with the accumulators in registers.
template <int ROWS, int VECS>
static inline void product_block(Strided a, const float* b, int64_t b_row, float* c, int64_t c_row,
                                 int64_t k_size, bool accumulate) {
  Vec acc[ROWS][VECS];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < VECS; v++) acc[m][v] = accumulate ? load(c + m * c_row + v * kLanes) : Vec{};
  for (int64_t k = 0; k < k_size; k++) {
    Vec bv[VECS];
    for (int v = 0; v < VECS; v++) bv[v] = load(b + k * b_row + v * kLanes);
    for (int m = 0; m < ROWS; m++) {
      const float av = a.p[m * a.row + k * a.column];
      for (int v = 0; v < VECS; v++) acc[m][v] += av * bv[v];
    }
  }
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < VECS; v++) store(c + m * c_row + v * kLanes, acc[m][v]);
}

#if defined(__AVX512F__)
constexpr int kBlockRows = 10;  // with two vectors: 20 accumulators of 32 registers
#else
constexpr int kBlockRows = 5;  // 10 of 16
#endif

/// Rows in as few blocks as there can be, all about as high: a low one would wait for its own sums.
template <int VECS>
static inline void product_columns(Strided a, const float* b, int64_t b_row, float* c, int64_t c_row,
                                   int64_t m_size, int64_t k_size, bool accumulate) {
  const int64_t blocks = (m_size + kBlockRows - 1) / kBlockRows;
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t m = m_size * i / blocks, rows = m_size * (i + 1) / blocks - m;
    with_rows<kBlockRows>(rows, [&]<int ROWS>() {
      product_block<ROWS, VECS>({a.p + m * a.row, a.row, a.column}, b, b_row, c + m * c_row, c_row, k_size,
                                accumulate);
    });
  }
}

/// C[m, n] (+)= A[m, k] B[k, n] for the tiles of attention: B and C have contiguous rows.
static inline void product(Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t m_size,
                           int64_t n_size, int64_t k_size, bool accumulate) {
  int64_t n = 0;
  for (; n + 2 * kLanes <= n_size; n += 2 * kLanes) {
    product_columns<2>(a, b + n, b_row, c + n, c_row, m_size, k_size, accumulate);
  }
  for (; n + kLanes <= n_size; n += kLanes) {
    product_columns<1>(a, b + n, b_row, c + n, c_row, m_size, k_size, accumulate);
  }
  if (n == n_size) return;
  for (int64_t m = 0; m < m_size; m++) {
    for (int64_t j = n; j < n_size; j++) {
      float total = accumulate ? c[m * c_row + j] : 0.0f;
      for (int64_t k = 0; k < k_size; k++) total += a.p[m * a.row + k * a.column] * b[k * b_row + j];
      c[m * c_row + j] = total;
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
