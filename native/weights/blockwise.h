#pragma once

#include <ATen/core/Tensor.h>

#include "weights/weight_storage.h"

namespace peft {

using at::Tensor;

/// A matrix in 4-bit codes, block by block over its rows one after the other, byte for byte as bitsandbytes
/// holds it. On the CPU.
struct BlockwiseWeight {
  WeightFormat format = WeightFormat::kNf4;
  int64_t out = 0, in = 0;
  int64_t block_size = 64;
  Tensor codes;          // uint8 [(out * in + 1) / 2], the first weight of a byte in its high half
  Tensor absmax;         // fp32 [blocks]; undefined with double quantisation
  Tensor absmax_codes;   // uint8 [blocks]
  Tensor nested_absmax;  // fp32 [(blocks + 255) / 256]
  float nested_offset = 0;
  Tensor outlier_index;  // int32 [outliers], rising; undefined where there are none
  Tensor outlier_value;  // fp16 [outliers]

  int64_t elements() const { return out * in; }
  int64_t blocks() const { return (elements() + block_size - 1) / block_size; }
  bool double_quant() const { return absmax_codes.defined(); }
  int64_t bytes() const;
};

/// Absmax values that one nested absmax covers.
constexpr int64_t kNestedBlock = 256;

/// Quantises w, fp32 [out, in], to the nearest code of each block. Without outliers every byte is
/// bitsandbytes' own (its CPU code); outliers are left out of their block's absmax and kept in fp16.
BlockwiseWeight quantize_blockwise(const Tensor& w, const WeightStorage& storage);

/// absmax of every block in fp32, whichever way it is stored.
Tensor expand_absmax(const BlockwiseWeight& weight);

/// fp32 [out, in], outliers included.
Tensor dequantize_blockwise(const BlockwiseWeight& weight);

}  // namespace peft
