#include "core/base_matrices.h"

#include "error.h"
#include "weights/bert_tensors.h"
#include "weights/quant_file.h"
#include "weights/safetensors.h"

namespace peft {

Tensor BaseMatrices::held(const LoraModule& module) const {
  const auto [kind, layer] = module.path;
  if (kind == LinearKind::kPooler) return from_file(module, true);
  const LayerWeights& w = held_.layers[static_cast<size_t>(layer)];
  const int64_t d = shape_.hidden_size;
  const auto matrix = [](const std::unique_ptr<FrozenLinear>& m) { return m->dequantize().to(at::kCPU); };
  switch (kind) {
    case LinearKind::kQuery:
      return matrix(w.qkv).narrow(0, 0, d);
    case LinearKind::kKey:
      return matrix(w.qkv).narrow(0, d, d);
    case LinearKind::kValue:
      return matrix(w.qkv).narrow(0, 2 * d, d);
    case LinearKind::kAttentionOutput:
      return matrix(w.attention_output);
    case LinearKind::kIntermediate:
      return matrix(w.intermediate);
    case LinearKind::kOutput:
    default:
      return matrix(w.output);
  }
}

Tensor BaseMatrices::original(const LoraModule& module) const { return from_file(module, false); }

Tensor BaseMatrices::from_file(const LoraModule& module, bool quantised_too) const {
  const SafetensorsFile file(file_);
  const std::string name = bert_prefix(file) + module.name;
  const int64_t out = module.b.size(0), in = module.a.size(1);
  const std::optional<WeightFormat> format = stored_format(file, name);
  if (!format) {
    require_tensor(file, name + ".weight", {out, in});
    return file.read_float(name + ".weight");
  }
  if (!quantised_too) {
    throw EngineError("USAGE", file_ + ": \"" + name + "\" is quantised, and what it was before is not there",
                      "Give the model before it was quantised, with --load_in_4bit.");
  }
  if (*format == WeightFormat::kInt8) return dequantize_rows(read_row_int8(file, name, out, in));
  return dequantize_blockwise(read_blockwise(file, name, out, in));
}

}  // namespace peft
