#pragma once

#include "device.h"

// Weights of a FourBitView, as floats.

namespace peft::cuda {

/// Multiplied and added apart, as bitsandbytes does: a fused multiply-add would differ in the last bit.
__device__ inline float block_absmax(const FourBitView& w, long long block) {
  if (w.absmax != nullptr) return w.absmax[block];
  const float code = w.absmax_table[w.absmax_codes[block]];
  return __fadd_rn(__fmul_rn(code, w.nested_absmax[block >> w.nested_shift]), w.absmax_offset);
}

__device__ inline int code_at(const FourBitView& w, long long element) {
  const int byte = w.codes[element >> 1];
  return element & 1 ? byte & 15 : byte >> 4;
}

__device__ inline float weight_at(const FourBitView& w, const float* table, long long element) {
  return __fmul_rn(table[code_at(w, element)], block_absmax(w, element >> w.block_shift));
}

/// Weights start to start + 7, which all exist; start is a multiple of 8, so that they share a block.
__device__ inline Pack<float, kGroup> weight_group(const FourBitView& w, const float* table,
                                                   long long start) {
  const unsigned word = *reinterpret_cast<const unsigned*>(w.codes + start / 2);
  const float absmax = block_absmax(w, start >> w.block_shift);
  Pack<float, kGroup> group;
#pragma unroll
  for (int j = 0; j < kGroup; j++) {
    const unsigned byte = word >> (j / 2 * 8);
    group.v[j] = __fmul_rn(table[j % 2 == 0 ? byte >> 4 & 15 : byte & 15], absmax);
  }
  return group;
}

struct CodeTable {
  float v[16];
};

}  // namespace peft::cuda
