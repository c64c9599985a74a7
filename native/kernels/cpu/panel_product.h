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

/// Panels [first, last) of C [rows, n_size] = A [rows, k_size] B, all rows; `packed` is panel 0.
void product_range(const float* a, int64_t lda, const float* packed, int64_t k_size, int64_t n_size,
                   int64_t rows, int64_t first, int64_t last, const float* bias, bool accumulate, float* c,
                   int64_t ldc);

}  // namespace peft::cpu::PEFT_KERNEL_NS
