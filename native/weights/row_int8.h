#pragma once

#include <ATen/core/Tensor.h>

namespace peft {

/// A matrix in 8 bits with one scale a row, as LLM.int8() holds it: W[i, j] = codes[i, j] * absmax[i] / 127.
/// On the CPU.
struct RowInt8Weight {
  at::Tensor codes;   // int8 [out, in]
  at::Tensor absmax;  // fp32 [out]

  int64_t bytes() const { return static_cast<int64_t>(codes.nbytes() + absmax.nbytes()); }
};

/// Rounds w (fp32 [out, in]) half to even, as bitsandbytes' int8_vectorwise_quant does on the fp16 weight
/// that Linear8bitLt hands it.
RowInt8Weight quantize_rows(const at::Tensor& w, const std::string& name = "a weight");

/// fp32 [out, in].
at::Tensor dequantize_rows(const RowInt8Weight& weight);

}  // namespace peft
