#include "weights/row_int8.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/round.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "error.h"

namespace peft {

RowInt8Weight quantize_rows(const at::Tensor& w, const std::string& name) {
  const at::Tensor half = w.to(at::kHalf).to(at::kFloat);
  const at::Tensor absmax = std::get<0>(half.abs().max(1));
  if (!absmax.isfinite().all().item<bool>()) {
    throw EngineError("NOT_FINITE",
                      name + ": holds weights beyond 65504, the range of the fp16 that int8 starts from",
                      "Take 4 bits, or leave the weights as they are.");
  }
  const at::Tensor scaled = half * (absmax.unsqueeze(1).reciprocal() * 127.0f);
  const at::Tensor codes = at::where(absmax.unsqueeze(1) > 0, at::round(scaled), at::zeros_like(scaled));
  return {codes.to(at::kChar), absmax};
}

at::Tensor dequantize_rows(const RowInt8Weight& weight) {
  return weight.codes.to(at::kFloat) * (weight.absmax / 127.0f).unsqueeze(1);
}

}  // namespace peft
