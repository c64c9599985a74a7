#pragma once

#include "kernels/cpu/panel_product.h"

// Products of fp32 with fewer multiplications than additions, after Winograd ("A new algorithm for inner
// product", IEEE Transactions on Computers, 1968):
//
//   x1 y1 + x2 y2  =  (x1 + y2) (x2 + y1) - x1 x2 - y1 y2
//
// The last two terms are of one row or of one column alone, so that two additions and one fused multiply-add
// take the place of two of the latter. That gains nothing where both run on the same ports. AMD's Zen has
// adders beside its multipliers; with some entries multiplied in pairs and some as they are, both are busy.
//
// A sum is as exact as the plain one where x and y are alike in size, so rows of A are scaled by a power of
// two to the size of B. A row's numbers depend on no other row.

namespace peft::cpu::PEFT_KERNEL_NS {

/// Rows of A at once, and the entries of a row of which the first two are multiplied as a pair.
#if defined(__AVX512F__)
constexpr int kPairedRows = 10;  // 20 accumulators of 32 registers
constexpr int64_t kGroup = 3;
#else
constexpr int kPairedRows = 4;  // 8 accumulators of 16 registers
constexpr int64_t kGroup = 4;
#endif

/// Rows of a panel that are worked on at once, each with terms of its own.
constexpr int64_t kPairedDepth = 256;

/// Rows of B's first panel that its level is taken from.
constexpr int64_t level_rows(int64_t k_size) { return k_size < 64 ? k_size : 64; }

/// The size of the `count` entries of a panel: the root of the mean of their squares, as a power of two.
float panel_level(const float* panel, int64_t count);

/// Floats of the terms -y1 y2 of `panels` panels: [blocks of kPairedDepth rows, panels, kPanel].
constexpr int64_t pair_term_floats(int64_t k_size, int64_t panels) {
  return (k_size + kPairedDepth - 1) / kPairedDepth * panels * kPanel;
}

/// Those of panels [first, last) of `panels`; `packed` is panel 0.
void pair_terms(const float* packed, int64_t k_size, int64_t panels, int64_t first, int64_t last,
                float* terms);

/// Rows of A as products in pairs take them: scaled to the size of B, in tiles of kPairedRows rows for each
/// block of kPairedDepth entries, with their terms.
class PairedRows {
 public:
  PairedRows(int64_t rows, int64_t k_size);

  /// Takes rows [first, last) of A as rows [first, last) of these, where `first` begins a tile; threads may
  /// share them out.
  void pack(const float* a, int64_t lda, float level, int64_t first, int64_t last);
  /// The rows that thread `thread` of `threads` packs.
  Share share(int64_t thread, int64_t threads) const;

  int64_t rows() const { return rows_; }
  /// The tile of block k0 that begins with row m, and what belongs to its rows.
  const float* tile(int64_t m, int64_t k0) const { return tiles_.data + k0 * rows_ + m * depth(k0); }
  const float* terms(int64_t m, int64_t k0) const { return terms_.data + k0 / kPairedDepth * rows_ + m; }
  /// What takes sums back to the size of A.
  const float* back(int64_t m, int64_t k0) const { return back_.data + k0 / kPairedDepth * rows_ + m; }
  int64_t depth(int64_t k0) const { return k0 + kPairedDepth < k_size_ ? kPairedDepth : k_size_ - k0; }

 private:
  int64_t rows_, k_size_;
  Scratch tiles_, terms_, back_;
};

/// A share of C [rows, n_size] = A [rows, k_size] B + tail, whose rows begin with a tile; `packed` and
/// `terms`, which are those of `panels` panels, begin with panel 0, c and tail with row 0.
void paired_range(const PairedRows& a, const float* packed, const float* terms, int64_t panels,
                  int64_t k_size, int64_t n_size, const Share& share, const Tail& tail, float* c,
                  int64_t ldc);

}  // namespace peft::cpu::PEFT_KERNEL_NS
