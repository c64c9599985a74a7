#include "weights/linear_parts.h"

#include <ATen/ops/cat.h>

#include "error.h"

namespace peft {

at::ScalarType plain_type(WeightFormat format) {
  if (format == WeightFormat::kFloat32) return at::kFloat;
  return format == WeightFormat::kBfloat16 ? at::kBFloat16 : at::kHalf;
}

Tensor rounded_weight(const Tensor& value, at::ScalarType type, const std::string& name) {
  const Tensor out = value.to(type);
  if (type == at::kHalf && !out.isfinite().all().item<bool>()) {
    throw EngineError("NOT_FINITE", name + " holds weights beyond 65504, fp16's range",
                      "Hold this model as bfloat16 or float32.");
  }
  return out;
}

void LinearParts::add(const Tensor& weight, const std::string& name) {
  if (is_four_bit(storage_.format)) return add(quantize_blockwise(weight, storage_));
  if (storage_.format == WeightFormat::kInt8) return add(quantize_rows(weight, name));
  plain_.push_back(rounded_weight(weight, plain_type(storage_.format), name));
}

std::unique_ptr<FrozenLinear> LinearParts::join() const {
  if (!blockwise_.empty()) return make_four_bit_linear(blockwise_, device_);
  if (!rows_.empty()) {
    std::vector<Tensor> codes, absmax;
    for (const RowInt8Weight& part : rows_) {
      codes.push_back(part.codes);
      absmax.push_back(part.absmax);
    }
    return make_int8_linear({at::cat(codes), at::cat(absmax)}, storage_.outlier_threshold, device_,
                            storage_.int8_gradient ? Int8Gradient::kRounded : Int8Gradient::kExact);
  }
  const Tensor whole = at::cat(plain_).to(device_);
  if (storage_.products != WeightFormat::kFloat32) {
    return make_rounded_linear(whole.to(at::kFloat), plain_type(storage_.products));
  }
  return storage_.format == WeightFormat::kFloat32 ? make_dense_linear(whole) : make_half_linear(whole);
}

}  // namespace peft
