#pragma once

#include "kernels/cpu/simd.h"

namespace peft::cpu::PEFT_KERNEL_NS {

#if defined(__AVX512F__)
constexpr IntVec kInterleaveLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
constexpr IntVec kInterleaveHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
#elif defined(__AVX2__)
constexpr IntVec kInterleaveLow = {0, 8, 1, 9, 2, 10, 3, 11};
constexpr IntVec kInterleaveHigh = {4, 12, 5, 13, 6, 14, 7, 15};
#else
constexpr IntVec kInterleaveLow = {0, 4, 1, 5};
constexpr IntVec kInterleaveHigh = {2, 6, 3, 7};
#endif

/// to[j][i] = from[i][j] for a square of kLanes by kLanes, of which the first `rows` rows are there and the
/// rest is zero. Interleaving the upper with the lower half of the rows, log2(kLanes) times over, transposes.
static inline void transpose_rows(const float* from, int64_t from_row, int64_t rows, float* to,
                                  int64_t to_row) {
  Vec v[kLanes];
  for (int i = 0; i < kLanes; i++) v[i] = i < rows ? load(from + i * from_row) : Vec{};
  for (int round = 1; round < kLanes; round *= 2) {
    Vec t[kLanes];
    for (int i = 0; i < kLanes / 2; i++) {
      t[2 * i] = __builtin_shuffle(v[i], v[i + kLanes / 2], kInterleaveLow);
      t[2 * i + 1] = __builtin_shuffle(v[i], v[i + kLanes / 2], kInterleaveHigh);
    }
    for (int i = 0; i < kLanes; i++) v[i] = t[i];
  }
  for (int i = 0; i < kLanes; i++) store(to + i * to_row, v[i]);
}

static inline void transpose_square(const float* from, int64_t from_row, float* to, int64_t to_row) {
  transpose_rows(from, from_row, kLanes, to, to_row);
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
