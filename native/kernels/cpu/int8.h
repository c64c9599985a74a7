#pragma once

#include "kernels/cpu/kernels_internal.h"

namespace peft::cpu::PEFT_KERNEL_NS {

/// Codes of a stored weight are shifted into the range of unsigned bytes, as VNNI's product asks for.
constexpr int kInt8Shift = 128;

/// Columns that a row of k codes takes up: VNNI sums them four at a time.
constexpr int64_t int8_columns(int64_t k) { return padded(k, 4); }

}  // namespace peft::cpu::PEFT_KERNEL_NS
