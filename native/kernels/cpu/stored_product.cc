#include "kernels/cpu/half.h"
#include "kernels/cpu/int8.h"
#include "kernels/cpu/paired_product.h"
#include "kernels/cpu/transpose.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Products with a frozen weight that is stored in fewer bits: a few panels at a time are expanded to fp32 in
// a buffer that stays in the second-level cache, and multiplied with all rows before the next ones.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kBufferFloats = 48 * 1024;  // 192 KiB

/// Where the scales of a panel's rows are.
struct PanelScales {
  PanelScales(const StoredWeight& w, int64_t p) : w(w) {
    for (int64_t lane = 0; lane < kPanel; lane++) {
      // Rows beyond the last have codes of zero; any scale does.
      const int64_t row = p * kPanel + lane < w.n ? p * kPanel + lane : w.n - 1;
      part[lane] = row / w.part_rows;
      first[lane] = (row - part[lane] * w.part_rows) * w.k;
    }
  }

  /// The absmax of every row at column k.
  void at(int64_t k, float* scales) const {
    if (w.absmax != nullptr) {
      for (int64_t lane = 0; lane < kPanel; lane++)
        scales[lane] = w.absmax[part[lane] * w.part_blocks + ((first[lane] + k) >> w.block_shift)];
      return;
    }
    for (int64_t lane = 0; lane < kPanel; lane++) {
      const int64_t block = (first[lane] + k) >> w.block_shift;
      // Rounded before the offset is added, as bitsandbytes does: volatile keeps the two from fusing.
      const volatile float scaled = w.absmax_book[w.absmax_codes[part[lane] * w.part_blocks + block]] *
                                    w.nested_absmax[part[lane] * w.part_nested + (block >> 8)];
      scales[lane] = scaled + w.nested_offset[part[lane]];
    }
  }

  const StoredWeight& w;
  int64_t part[kPanel], first[kPanel];
};

/// kLanes codes below 16 to their values.
inline Vec look_up(const float* book, IntVec code) {
#if defined(__AVX512F__)
  return __builtin_shuffle(load(book), code);
#elif defined(__AVX2__)
  return __builtin_shuffle(load(book), load(book + kLanes), code);
#else
  Vec v{};
  for (int i = 0; i < kLanes; i++) v[i] = book[code[i]];
  return v;
#endif
}

/// kLanes bytes. GCC 12 would convert them one by one.
inline IntVec load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
#elif defined(__AVX2__)
  return (IntVec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
#else
  IntVec v{};
  for (int i = 0; i < kLanes; i++) v[i] = p[i];
  return v;
#endif
}

inline void expand_column(const float* book, const uint8_t* codes, Vec low_scale, Vec high_scale, float* to) {
  const IntVec both = load_bytes(codes);
  store(to, look_up(book, both & 15) * low_scale);
  store(to + kLanes, look_up(book, both >> 4) * high_scale);
}

void expand_four_bit(const StoredWeight& w, int64_t p, int64_t k0, int64_t k1, float* to) {
  // Every row's block ends at a multiple of the largest power of two that divides both k and the block.
  int64_t run = (int64_t)1 << w.block_shift;
  while (w.k % run != 0) run /= 2;
  const uint8_t* codes = (const uint8_t*)w.codes + p * w.k * kLanes;
  const PanelScales panel(w, p);
  float scales[kPanel];
  for (int64_t k = k0; k < k1;) {
    const int64_t run_end = (k / run + 1) * run, end = run_end < k1 ? run_end : k1;
    panel.at(k, scales);
    const Vec low = load(scales), high = load(scales + kLanes);
    for (; k < end; k++) expand_column(w.book, codes + k * kLanes, low, high, to + (k - k0) * kPanel);
  }
}

void put_outliers(const StoredWeight& w, int64_t p, int64_t k0, int64_t k1, float* to) {
  if (w.outlier_begin == nullptr) return;
  int64_t low = w.outlier_begin[p], high = w.outlier_begin[p + 1];
  const int64_t last = high;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if ((int64_t)w.outlier_place[middle] < k0 * kPanel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < last && (int64_t)w.outlier_place[low] < k1 * kPanel; low++) {
    to[w.outlier_place[low] - k0 * kPanel] = half_to_float(w.outlier_value[low]);
  }
}

/// k0 is a multiple of four, as the columns of whole panels are.
void expand_int8(const StoredWeight& w, int64_t p, int64_t k0, int64_t k1, float* to) {
  const uint8_t* codes = (const uint8_t*)w.codes + (p * int8_columns(w.k) + k0) * kPanel;
  for (int v = 0; v < kVectors; v++) {
    const Vec scale = load(w.scale + p * kPanel + v * kLanes);
    for (int64_t k = k0; k < k1; k += 4) {
      WordVec four;
      __builtin_memcpy(&four, codes + (k - k0) * kPanel + 4 * v * kLanes, sizeof four);
      for (int64_t j = k; j < k + 4 && j < k1; j++, four >>= 8) {
        const IntVec code = (IntVec)(four & 255u) - kInt8Shift;
        store(to + (j - k0) * kPanel + v * kLanes, __builtin_convertvector(code, Vec) * scale);
      }
    }
  }
}

/// Columns [k0, k1) of W's panel p as fp32 [k1 - k0][kPanel].
void expand_panel(const StoredWeight& w, int64_t p, int64_t k0, int64_t k1, float* to) {
  if (w.format == StoredFormat::kFourBit) {
    expand_four_bit(w, p, k0, k1, to);
  } else if (w.format == StoredFormat::kInt8) {
    expand_int8(w, p, k0, k1, to);
  } else {
    const uint16_t* from = (const uint16_t*)w.codes + (p * w.k + k0) * kPanel;
    const bool half = w.format == StoredFormat::kFloat16;
    for (int64_t i = 0; i < (k1 - k0) * kPanel; i += kLanes) {
      store(to + i, half ? load_half(from + i) : load_bfloat16(from + i));
    }
  }
  put_outliers(w, p, k0, k1, to);
}

/// Columns [first, last) of the first `depth` rows of W, in panels [depth][kPanel], for dx = dy W. `tile`
/// holds kPanel rows of these columns.
void expand_transposed(const StoredWeight& w, int64_t first, int64_t last, int64_t depth, float* tile,
                       float* to) {
  const int64_t width = padded(last - first, kPanel);
  for (int64_t p = 0; p * kPanel < depth; p++) {
    expand_panel(w, p, first, last, tile);
    for (int64_t i = (last - first) * kPanel; i < width * kPanel; i++) tile[i] = 0;
    const int64_t rows = depth - p * kPanel < kPanel ? depth - p * kPanel : kPanel;
    for (int64_t k = 0; k < width; k += kLanes) {
      float* panel = to + k / kPanel * kPanel * depth + p * kPanel * kPanel + k % kPanel;
      for (int64_t r = 0; r < kPanel; r += kLanes) {
        if (rows - r >= kLanes) {
          transpose_square(tile + k * kPanel + r, kPanel, panel + r * kPanel, kPanel);
        } else {
          for (int64_t i = r; i < rows; i++)
            for (int64_t j = 0; j < kLanes; j++) panel[i * kPanel + j] = tile[(k + j) * kPanel + i];
        }
      }
    }
  }
}

/// C [rows, n] = A [rows, k] B + tail, where expand(first, last, depth, tile, to) writes columns [first,
/// last) of the first `depth` rows of B as panels.
template <typename Expand>
void product_expanded(const float* a, int64_t lda, int64_t rows, int64_t k, int64_t n, const Tail& tail,
                      float* c, int64_t ldc, Expand expand) {
  const int64_t panels = padded(n, kPanel) / kPanel;
  const int64_t fit = kBufferFloats / (k * kPanel), group = fit > 1 ? fit : 1;
#pragma omp parallel
  {
    const Share share = panels_before_rows(panels, rows);
    if (share.begin < share.end) {
      const Scratch buffer(group * k * kPanel), tile(group * kPanel * kPanel);
      for (int64_t p = share.first; p < share.last; p += group) {
        const int64_t count = share.last - p < group ? share.last - p : group;
        const int64_t column = p * kPanel,
                      columns = n - column < count * kPanel ? n - column : count * kPanel;
        expand(column, column + columns, k, tile.data, buffer.data);
        product_range(a + share.begin * lda, lda, buffer.data, k, columns, share.end - share.begin, 0, count,
                      tail_at(tail, p, share.begin), c + share.begin * ldc + column, ldc);
      }
    }
  }
}

/// The same in pairs. Threads share what is done to rows of A, which takes longer than to expand B.
template <typename Expand>
void product_expanded_paired(const float* a, int64_t lda, int64_t rows, int64_t k, int64_t n,
                             const Tail& tail, float* c, int64_t ldc, Expand expand) {
  const int64_t panels = padded(n, kPanel) / kPanel;
  const int64_t fit = kBufferFloats / (k * kPanel), group = fit > 1 ? fit : 1;
  PairedRows all(rows, k);
#pragma omp parallel
  {
    const Scratch buffer(group * k * kPanel), tile(group * kPanel * kPanel),
        terms(pair_term_floats(k, group));
    const int64_t sample = level_rows(k);
    expand(0, n < kPanel ? n : kPanel, sample, tile.data, buffer.data);
    const float level = panel_level(buffer.data, sample * kPanel);
    const Share packing = all.share(thread_number(), thread_count());
    all.pack(a, lda, level, packing.begin, packing.end);
#pragma omp barrier
    const Share share = panels_before_rows(panels, rows, kPairedRows);
    for (int64_t p = share.first; p < share.last; p += group) {
      const int64_t count = share.last - p < group ? share.last - p : group;
      const int64_t column = p * kPanel, columns = n - column < count * kPanel ? n - column : count * kPanel;
      expand(column, column + columns, k, tile.data, buffer.data);
      pair_terms(buffer.data, k, count, 0, count, terms.data);
      paired_range(all, buffer.data, terms.data, count, k, columns, {0, count, share.begin, share.end},
                   tail_at(tail, p, 0), c + column, ldc);
    }
  }
}

/// What expands W' for y = x W', and W for dx = dy W.
auto rows_of(const StoredWeight& w) {
  return [&w](int64_t first, int64_t last, int64_t depth, float*, float* to) {
    for (int64_t p = first / kPanel; p * kPanel < last; p++, to += depth * kPanel)
      expand_panel(w, p, 0, depth, to);
  };
}
auto columns_of(const StoredWeight& w) {
  return [&w](int64_t first, int64_t last, int64_t depth, float* tile, float* to) {
    expand_transposed(w, first, last, depth, tile, to);
  };
}

}  // namespace

int64_t stored_rows(int64_t n) { return padded(n, kPanel); }

void store_half(const uint16_t* w, int64_t n, int64_t k, uint16_t* stored) {
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < padded(n, kPanel) / kPanel; p++) {
    uint16_t* to = stored + p * k * kPanel;
    for (int64_t lane = 0; lane < kPanel; lane++) {
      const int64_t row = p * kPanel + lane;
      for (int64_t j = 0; j < k; j++) to[j * kPanel + lane] = row < n ? w[row * k + j] : 0;
    }
  }
}

void store_four_bit(const uint8_t* codes, int64_t n, int64_t k, int64_t first_row, uint8_t* stored) {
  for (int64_t i = 0; i < n; i++) {
    const int64_t row = first_row + i, lane = row % kPanel;
    uint8_t* to = stored + row / kPanel * k * kLanes + lane % kLanes;
    const int shift = lane < kLanes ? 0 : 4;
    for (int64_t j = 0; j < k; j++) {
      const int64_t at = i * k + j;
      const int code = at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15;
      to[j * kLanes] = (uint8_t)((to[j * kLanes] & (0xf0 >> shift)) | code << shift);
    }
  }
}

void expand_stored(const StoredWeight& w, float* out) {
#pragma omp parallel
  {
    const Scratch tile(w.k * kPanel);
#pragma omp for schedule(static)
    for (int64_t p = 0; p < padded(w.n, kPanel) / kPanel; p++) {
      expand_panel(w, p, 0, w.k, tile.data);
      for (int64_t row = p * kPanel; row < w.n && row < (p + 1) * kPanel; row++)
        for (int64_t j = 0; j < w.k; j++) out[row * w.k + j] = tile.data[j * kPanel + row - p * kPanel];
    }
  }
}

void product_stored(const float* a, int64_t lda, const StoredWeight& w, int64_t rows, const Tail& tail,
                    float* c, int64_t ldc) {
  product_expanded(a, lda, rows, w.k, w.n, tail, c, ldc, rows_of(w));
}

void product_stored_transposed(const float* a, int64_t lda, const StoredWeight& w, int64_t rows,
                               const Tail& tail, float* c, int64_t ldc) {
  product_expanded(a, lda, rows, w.n, w.k, tail, c, ldc, columns_of(w));
}

void product_stored_paired(const float* a, int64_t lda, const StoredWeight& w, int64_t rows, const Tail& tail,
                           float* c, int64_t ldc) {
  product_expanded_paired(a, lda, rows, w.k, w.n, tail, c, ldc, rows_of(w));
}

void product_stored_transposed_paired(const float* a, int64_t lda, const StoredWeight& w, int64_t rows,
                                      const Tail& tail, float* c, int64_t ldc) {
  product_expanded_paired(a, lda, rows, w.n, w.k, tail, c, ldc, columns_of(w));
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
