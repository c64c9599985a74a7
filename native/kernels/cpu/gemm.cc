#include "kernels/cpu/paired_product.h"

// C = A B for a frozen B that is packed once: panels of kPanel columns, each stored row after row, so that
// the innermost loop reads B in sequence. Every element of C is summed by one thread in the order of k,
// whatever the number of rows and threads: a text's numbers do not depend on the batch it came in, nor a run
// on how many cores it had.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kDepth = 384;                  // rows of a panel that are worked on at once: 48 KiB of B
constexpr int64_t kRowBlock = 8 * kRows;         // rows of A that stay in the second-level cache meanwhile
constexpr int64_t kPackedRowFloats = 96 * 1024;  // 192 KiB of rows that are packed for products in pairs

template <int ROWS, int VECTORS>
inline void panel_product(const float* a, int64_t lda, const float* b, int64_t depth, const PanelTail& tail,
                          float* c, int64_t ldc, int64_t columns) {
  Vec acc[ROWS][VECTORS];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < VECTORS; v++) acc[m][v] = Vec{};
  multiply_add<ROWS, VECTORS>(acc, a, lda, b, depth);
  finish<ROWS, VECTORS>(acc, tail, c, ldc, columns);
}

void pack_panels(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
                 int64_t width, float scale, float* packed) {
  const int64_t panels = padded(n_size, width) / width;
#pragma omp parallel for schedule(static) if (k_size * n_size > 65536)
  for (int64_t p = 0; p < panels; p++) {
    float* to = packed + p * width * k_size;
    const int64_t columns = n_size - p * width < width ? n_size - p * width : width;
    const float* from = b + p * width * column_stride;
    for (int64_t k = 0; k < k_size; k++) {
      for (int64_t j = 0; j < columns; j++)
        to[k * width + j] = scale * from[k * row_stride + j * column_stride];
      for (int64_t j = columns; j < width; j++) to[k * width + j] = 0.0f;
    }
  }
}

}  // namespace

void product_range(const float* a, int64_t lda, const float* packed, int64_t k_size, int64_t n_size,
                   int64_t rows, int64_t first, int64_t last, const Tail& tail, float* c, int64_t ldc) {
  for (int64_t m0 = 0; m0 < rows; m0 += kRowBlock) {
    const int64_t m1 = m0 + kRowBlock < rows ? m0 + kRowBlock : rows;
    for (int64_t k0 = 0; k0 < k_size; k0 += kDepth) {
      const int64_t depth = k0 + kDepth < k_size ? kDepth : k_size - k0;
      const bool ends = k0 + depth == k_size;
      for (int64_t p = first; p < last; p++) {
        const float* b = packed + p * kPanel * k_size + k0 * kPanel;
        const int64_t columns = n_size - p * kPanel < kPanel ? n_size - p * kPanel : kPanel;
        float* to = c + p * kPanel;
        for (int64_t m = m0; m < m1; m += kRows) {
          PanelTail part = ends ? PanelTail(tail, p, m) : PanelTail();
          part.accumulate = tail.accumulate || k0 > 0;
          with_rows<kRows>(m + kRows <= m1 ? kRows : m1 - m, [&]<int ROWS>() {
            panel_product<ROWS, kVectors>(a + m * lda + k0, lda, b, depth, part, to + m * ldc, ldc, columns);
          });
        }
      }
    }
  }
}

int64_t packed_floats(int64_t k_size, int64_t n_size) { return k_size * padded(n_size, kPanel); }

void pack(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
          float* packed) {
  pack_panels(b, row_stride, column_stride, k_size, n_size, kPanel, 1.0f, packed);
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
                    int64_t n_size, const Tail& tail, float* c, int64_t ldc) {
  const int64_t panels = padded(n_size, kPanel) / kPanel;
#pragma omp parallel
  {
    const Share share = rows_or_panels(panels, rows);
    product_range(a + share.begin * lda, lda, packed, k_size, n_size, share.end - share.begin, share.first,
                  share.last, tail_at(tail, 0, share.begin), c + share.begin * ldc, ldc);
  }
}

// A B that is multiplied in pairs: its panels, their terms, and its level.

int64_t packed_floats_paired(int64_t k_size, int64_t n_size) {
  return packed_floats(k_size, n_size) + pair_term_floats(k_size, padded(n_size, kPanel) / kPanel) + 1;
}

void pack_paired(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
                 float* packed) {
  pack(b, row_stride, column_stride, k_size, n_size, packed);
  const int64_t panels = padded(n_size, kPanel) / kPanel;
  float* terms = packed + packed_floats(k_size, n_size);
#pragma omp parallel for schedule(static) if (k_size * n_size > 65536)
  for (int64_t p = 0; p < panels; p++) pair_terms(packed, k_size, panels, p, p + 1, terms);
  terms[pair_term_floats(k_size, panels)] = panel_level(packed, level_rows(k_size) * kPanel);
}

void product_packed_paired(const float* a, int64_t lda, const float* packed, int64_t rows, int64_t k_size,
                           int64_t n_size, const Tail& tail, float* c, int64_t ldc) {
  const int64_t panels = padded(n_size, kPanel) / kPanel;
  const float* terms = packed + packed_floats(k_size, n_size);
  const float level = terms[pair_term_floats(k_size, panels)];
  if (many_rows(rows, most_threads())) {
    // As many rows at a time as stay in the second-level cache.
    const int64_t fit = kPackedRowFloats / k_size / kPairedRows * kPairedRows,
                  block = fit > kPairedRows ? fit : kPairedRows;
#pragma omp parallel
    {
      const Share share = share_of_rows(panels, rows);
      for (int64_t m = share.begin; m < share.end; m += block) {
        PairedRows some(m + block < share.end ? block : share.end - m, k_size);
        some.pack(a + m * lda, lda, level, 0, some.rows());
        paired_range(some, packed, terms, panels, k_size, n_size, {0, panels, 0, some.rows()},
                     tail_at(tail, 0, m), c + m * ldc, ldc);
      }
    }
    return;
  }
  PairedRows all(rows, k_size);
#pragma omp parallel
  {
    const Share packing = all.share(thread_number(), thread_count());
    all.pack(a, lda, level, packing.begin, packing.end);
#pragma omp barrier
    paired_range(all, packed, terms, panels, k_size, n_size, share_of_panels(panels, rows), tail, c, ldc);
  }
}

int64_t thin_floats(int64_t k_size, int64_t n_size) { return k_size * padded(n_size, kLanes); }

void pack_thin(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
               float scale, float* packed) {
  pack_panels(b, row_stride, column_stride, k_size, n_size, kLanes, scale, packed);
}

void product_thin(const float* a, int64_t lda, const ThinPart* parts, int64_t count, int64_t k_size, float* c,
                  int64_t ldc) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < count; i++) blocks += padded(parts[i].end - parts[i].begin, kRows) / kRows;
#pragma omp parallel if (blocks * kRows * k_size > 32768)
  {
    const int64_t first = blocks * thread_number() / thread_count(),
                  last = blocks * (thread_number() + 1) / thread_count();
    int64_t block = 0;
    for (const ThinPart* part = parts; part < parts + count && block < last; part++) {
      for (int64_t m = part->begin; m < part->end && block < last; m += kRows, block++) {
        if (block < first || part->packed == nullptr) continue;
        for (int64_t n = 0; n < part->n; n += kLanes) {
          const float* b = part->packed + n * k_size;
          float* to = c + m * ldc + n;
          with_rows<kRows>(m + kRows <= part->end ? kRows : part->end - m, [&]<int ROWS>() {
            panel_product<ROWS, 1>(a + m * lda, lda, b, k_size, {}, to, ldc, part->n - n);
          });
        }
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
