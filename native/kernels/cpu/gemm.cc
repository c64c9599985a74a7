#include "kernels/cpu/panel_product.h"

// C = A B for a frozen B that is packed once: panels of kPanel columns, each stored row after row, so that
// the innermost loop reads B in sequence. Every element of C is summed by one thread in the order of k,
// whatever the number of rows and threads: a text's numbers do not depend on the batch it came in, nor a run
// on how many cores it had.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kDepth = 384;           // rows of a panel that are worked on at once: 48 KiB of B
constexpr int64_t kRowBlock = 8 * kRows;  // rows of A that stay in the second-level cache meanwhile

template <int ROWS>
inline void panel_product(const float* a, int64_t lda, const float* b, int64_t depth, bool add,
                          const float* bias, float* c, int64_t ldc, int64_t columns) {
  Vec acc[ROWS][kVectors];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < kVectors; v++) acc[m][v] = Vec{};
  for (int64_t k = 0; k < depth; k++) {
    Vec bv[kVectors];
    for (int v = 0; v < kVectors; v++) bv[v] = load(b + k * kPanel + v * kLanes);
    for (int m = 0; m < ROWS; m++) {
      const float av = a[m * lda + k];
      for (int v = 0; v < kVectors; v++) acc[m][v] += av * bv[v];
    }
  }
  for (int m = 0; m < ROWS; m++) {
    for (int v = 0; v < kVectors; v++) {
      float* to = c + m * ldc + v * kLanes;
      const int64_t n = columns - v * kLanes;
      if (n >= kLanes) {
        Vec x = acc[m][v];
        if (add) x += load(to);
        if (bias != nullptr) x += load(bias + v * kLanes);
        store(to, x);
      } else if (n > 0) {
        Vec x = acc[m][v];
        if (add) x += load_first(to, n);
        if (bias != nullptr) x += load_first(bias + v * kLanes, n);
        store_first(to, x, n);
      }
    }
  }
}

template <int ROWS>
inline void remaining_rows(int64_t rows, const float* a, int64_t lda, const float* b, int64_t depth, bool add,
                           const float* bias, float* c, int64_t ldc, int64_t columns) {
  if (rows == ROWS) {
    panel_product<ROWS>(a, lda, b, depth, add, bias, c, ldc, columns);
  } else if constexpr (ROWS > 1) {
    remaining_rows<ROWS - 1>(rows, a, lda, b, depth, add, bias, c, ldc, columns);
  }
}

}  // namespace

void product_range(const float* a, int64_t lda, const float* packed, int64_t k_size, int64_t n_size,
                   int64_t rows, int64_t first, int64_t last, const float* bias, bool accumulate, float* c,
                   int64_t ldc) {
  for (int64_t m0 = 0; m0 < rows; m0 += kRowBlock) {
    const int64_t m1 = m0 + kRowBlock < rows ? m0 + kRowBlock : rows;
    for (int64_t k0 = 0; k0 < k_size; k0 += kDepth) {
      const int64_t depth = k0 + kDepth < k_size ? kDepth : k_size - k0;
      const bool add = accumulate || k0 > 0;
      for (int64_t p = first; p < last; p++) {
        const float* b = packed + p * kPanel * k_size + k0 * kPanel;
        const float* panel_bias = bias != nullptr && k0 + depth == k_size ? bias + p * kPanel : nullptr;
        const int64_t columns = n_size - p * kPanel < kPanel ? n_size - p * kPanel : kPanel;
        float* to = c + p * kPanel;
        int64_t m = m0;
        for (; m + kRows <= m1; m += kRows) {
          panel_product<kRows>(a + m * lda + k0, lda, b, depth, add, panel_bias, to + m * ldc, ldc, columns);
        }
        if (m < m1) {
          remaining_rows<kRows - 1>(m1 - m, a + m * lda + k0, lda, b, depth, add, panel_bias, to + m * ldc,
                                    ldc, columns);
        }
      }
    }
  }
}

int64_t packed_floats(int64_t k_size, int64_t n_size) { return k_size * padded(n_size, kPanel); }

void pack(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
          float* packed) {
  const int64_t panels = padded(n_size, kPanel) / kPanel;
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < panels; p++) {
    float* to = packed + p * kPanel * k_size;
    const int64_t columns = n_size - p * kPanel < kPanel ? n_size - p * kPanel : kPanel;
    const float* from = b + p * kPanel * column_stride;
    for (int64_t k = 0; k < k_size; k++) {
      for (int64_t j = 0; j < columns; j++) to[k * kPanel + j] = from[k * row_stride + j * column_stride];
      for (int64_t j = columns; j < kPanel; j++) to[k * kPanel + j] = 0.0f;
    }
  }
}

void unpack(const float* packed, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
            float* b) {
  const int64_t panels = padded(n_size, kPanel) / kPanel;
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < panels; p++) {
    const float* from = packed + p * kPanel * k_size;
    const int64_t columns = n_size - p * kPanel < kPanel ? n_size - p * kPanel : kPanel;
    float* to = b + p * kPanel * column_stride;
    for (int64_t j = 0; j < columns; j++)
      for (int64_t k = 0; k < k_size; k++) to[k * row_stride + j * column_stride] = from[k * kPanel + j];
  }
}

void product_packed(const float* a, int64_t lda, const float* packed, int64_t rows, int64_t k_size,
                    int64_t n_size, const float* bias, bool accumulate, float* c, int64_t ldc) {
  const int64_t panels = padded(n_size, kPanel) / kPanel;
#pragma omp parallel
  {
    const int64_t threads = thread_count(), thread = thread_number();
    if (rows >= 4 * kRows * threads) {
      // Whole row blocks a thread, so that only the last one has a remainder.
      const int64_t share = padded((rows + threads - 1) / threads, kRows);
      const int64_t begin = thread * share < rows ? thread * share : rows,
                    end = begin + share < rows ? begin + share : rows;
      product_range(a + begin * lda, lda, packed, k_size, n_size, end - begin, 0, panels, bias, accumulate,
                    c + begin * ldc, ldc);
    } else {
      product_range(a, lda, packed, k_size, n_size, rows, panels * thread / threads,
                    panels * (thread + 1) / threads, bias, accumulate, c, ldc);
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
