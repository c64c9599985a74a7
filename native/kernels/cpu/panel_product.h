#pragma once

#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/simd.h"

namespace peft::cpu::PEFT_KERNEL_NS {

#if defined(__AVX512F__)
constexpr int kRows = 14, kVectors = 2;  // 28 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int kRows = 6, kVectors = 2;  // 12 accumulators of 16 registers
#else
constexpr int kRows = 5, kVectors = 2;  // 10 of 16
#endif
/// Columns of B in one panel; a panel is stored row after row.
constexpr int64_t kPanel = kVectors * kLanes;

/// acc += A[ROWS, depth] B[depth, VECTORS * kLanes], where row k of B is at b + k * VECTORS * kLanes.
template <int ROWS, int VECTORS>
static inline void multiply_add(Vec (&acc)[ROWS][VECTORS], const float* a, int64_t lda, const float* b,
                                int64_t depth) {
  for (int64_t k = 0; k < depth; k++) {
    Vec bv[VECTORS];
    for (int v = 0; v < VECTORS; v++) bv[v] = load(b + (k * VECTORS + v) * kLanes);
    for (int m = 0; m < ROWS; m++) {
      const float av = a[m * lda + k];
      for (int v = 0; v < VECTORS; v++) acc[m][v] += av * bv[v];
    }
  }
}

/// The tail of panels `panel` and on and of rows `row` and on.
static inline Tail tail_at(Tail tail, int64_t panel, int64_t row) {
  if (tail.bias != nullptr) tail.bias += panel * kPanel;
  if (tail.t != nullptr) tail.t += row * tail.ldt;
  if (tail.part_of != nullptr) tail.part_of += row;
  tail.panel += panel;
  return tail;
}

/// The part of a Tail that falls on one panel and the rows from one on.
struct PanelTail {
  bool accumulate = false;
  const float* bias = nullptr;
  const float* t = nullptr;
  int64_t ldt = 0;
  const float* u = nullptr;
  int64_t rank = 0;
  const WidePanels* parts = nullptr;
  const int32_t* part_of = nullptr;
  int64_t panel = 0;

  PanelTail() = default;
  PanelTail(const Tail& whole, int64_t at_panel, int64_t row) {
    const Tail tail = tail_at(whole, at_panel, row);
    accumulate = tail.accumulate;
    bias = tail.bias;
    panel = tail.panel;
    t = tail.t;
    ldt = tail.ldt;
    parts = tail.parts;
    part_of = tail.part_of;
    if (part_of == nullptr) take(tail.u);
  }

  /// Whether the first `rows` rows take different factors.
  bool mixed(int64_t rows) const { return part_of != nullptr && part_of[0] != part_of[rows - 1]; }
  /// The tail of rows from `row` on, all of which take its factor.
  PanelTail at_row(int64_t row) const {
    PanelTail one = *this;
    one.part_of = nullptr;
    if (t != nullptr) one.t += row * ldt;
    one.take(parts[part_of[row]]);
    return one;
  }

 private:
  void take(const WidePanels& factor) {
    if (factor.u == nullptr) {
      t = nullptr;
      return;
    }
    const PanelRows& rows = factor.rows[panel];
    t += rows.begin;
    u = factor.u + rows.at;
    rank = rows.end - rows.begin;
  }
};

/// C[ROWS, columns] = acc + tail, for rows of one factor.
template <int ROWS, int VECTORS>
static inline void finish_alike(Vec (&acc)[ROWS][VECTORS], const PanelTail& tail, float* c, int64_t ldc,
                                int64_t columns) {
  if (tail.t != nullptr) multiply_add<ROWS, VECTORS>(acc, tail.t, tail.ldt, tail.u, tail.rank);
  for (int m = 0; m < ROWS; m++) {
    for (int v = 0; v < VECTORS; v++) {
      float* to = c + m * ldc + v * kLanes;
      const int64_t n = columns - v * kLanes;
      if (n >= kLanes) {
        Vec x = acc[m][v];
        if (tail.accumulate) x += load(to);
        if (tail.bias != nullptr) x += load(tail.bias + v * kLanes);
        store(to, x);
      } else if (n > 0) {
        Vec x = acc[m][v];
        if (tail.accumulate) x += load_first(to, n);
        if (tail.bias != nullptr) x += load_first(tail.bias + v * kLanes, n);
        store_first(to, x, n);
      }
    }
  }
}

/// C[rows, columns] = sums + tail, run by run of rows with one factor: the same sums in the same order as if
/// each run were a batch of its own.
template <int VECTORS>
static __attribute__((noinline)) void finish_runs(const float* sums, int64_t rows, const PanelTail& tail,
                                                  float* c, int64_t ldc, int64_t columns) {
  for (int64_t begin = 0, end = 0; begin < rows; begin = end) {
    while (end < rows && tail.part_of[end] == tail.part_of[begin]) end++;
    const PanelTail one = tail.at_row(begin);
    with_rows<kRows>(end - begin, [&]<int ROWS>() {
      Vec acc[ROWS][VECTORS];
      for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < VECTORS; v++) acc[m][v] = load(sums + ((begin + m) * VECTORS + v) * kLanes);
      finish_alike<ROWS, VECTORS>(acc, one, c + begin * ldc, ldc, columns);
    });
  }
}

/// C[ROWS, columns] = acc + tail.
template <int ROWS, int VECTORS>
static inline void finish(Vec (&acc)[ROWS][VECTORS], const PanelTail& tail, float* c, int64_t ldc,
                          int64_t columns) {
  if (!tail.mixed(ROWS)) {
    if (tail.part_of != nullptr) return finish_alike<ROWS, VECTORS>(acc, tail.at_row(0), c, ldc, columns);
    return finish_alike<ROWS, VECTORS>(acc, tail, c, ldc, columns);
  }
  alignas(64) float sums[ROWS * VECTORS * kLanes];
  for (int m = 0; m < ROWS; m++)
    for (int v = 0; v < VECTORS; v++) store(sums + (m * VECTORS + v) * kLanes, acc[m][v]);
  finish_runs<VECTORS>(sums, ROWS, tail, c, ldc, columns);
}

/// Panels [first, last) of C [rows, n_size] = A [rows, k_size] B + tail, all rows; `packed` is panel 0.
void product_range(const float* a, int64_t lda, const float* packed, int64_t k_size, int64_t n_size,
                   int64_t rows, int64_t first, int64_t last, const Tail& tail, float* c, int64_t ldc);

/// The part of a product that one thread does: panels [first, last) and rows [begin, end).
struct Share {
  int64_t first = 0, last = 0, begin = 0, end = 0;
};

/// All panels for a part of the rows, and the other way round.
static inline Share share_of_rows(int64_t panels, int64_t rows) {
  const int64_t threads = thread_count(), thread = thread_number();
  return {0, panels, rows * thread / threads, rows * (thread + 1) / threads};
}
static inline Share share_of_panels(int64_t panels, int64_t rows) {
  const int64_t threads = thread_count(), thread = thread_number();
  return {panels * thread / threads, panels * (thread + 1) / threads, 0, rows};
}

/// Whether each of `threads` threads gets several blocks of rows.
static inline bool many_rows(int64_t rows, int64_t threads) { return rows >= 4 * kRows * threads; }

/// Rows are shared out where there are many, panels otherwise.
static inline Share rows_or_panels(int64_t panels, int64_t rows) {
  return many_rows(rows, thread_count()) ? share_of_rows(panels, rows) : share_of_panels(panels, rows);
}

/// Panels before rows, where every thread that works on a panel has to prepare it for itself; rows by whole
/// blocks.
static inline Share panels_before_rows(int64_t panels, int64_t rows, int64_t row_block = kRows) {
  const int64_t threads = thread_count(), thread = thread_number();
  const int64_t across = threads < panels ? threads : panels, down = threads / across;
  const int64_t column = thread % across, row = thread / across;
  if (row >= down) return {};
  const int64_t share = padded((rows + down - 1) / down, row_block);
  const int64_t begin = row * share < rows ? row * share : rows;
  return {panels * column / across, panels * (column + 1) / across, begin,
          begin + share < rows ? begin + share : rows};
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
