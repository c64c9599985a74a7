#include "weights/quantize_model.h"

#include <cmath>
#include <map>
#include <vector>

#include "error.h"
#include "weights/bert_tensors.h"
#include "weights/quant_file.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

/// Adds up the report while matrices are quantised.
class Quantizer {
 public:
  Quantizer(const SafetensorsFile& file, const WeightStorage& storage) : file_(file), storage_(storage) {}

  void quantize(const std::string& module, std::map<std::string, Tensor>& tensors) {
    const std::string key = module + ".weight";
    const TensorEntry& entry = file_.table().at(key);
    const Tensor w = file_.read_float(key);
    Tensor restored;
    if (storage_.format == WeightFormat::kInt8) {
      const RowInt8Weight q = quantize_rows(w, file_.path() + ": \"" + key + "\"");
      restored = dequantize_rows(q);
      report_.bytes += q.bytes();
      put_row_int8(tensors, module, q);
    } else {
      const BlockwiseWeight q = quantize_blockwise(w, storage_);
      restored = dequantize_blockwise(q);
      report_.bytes += q.bytes();
      if (q.outlier_index.defined()) report_.outliers += q.outlier_index.numel();
      put_blockwise(tensors, module, q);
    }
    report_.tensors++;
    report_.parameters += w.numel();
    report_.source_bytes += static_cast<int64_t>(entry.end - entry.begin);
    error_ += restored.sub_(w).square_().sum(at::kDouble).item<double>();
    norm_ += w.square().sum(at::kDouble).item<double>();
  }

  QuantizeReport report() const {
    QuantizeReport r = report_;
    r.mean_squared_error = r.parameters > 0 ? error_ / static_cast<double>(r.parameters) : 0;
    r.relative_error = norm_ > 0 ? std::sqrt(error_ / norm_) : 0;
    return r;
  }

 private:
  const SafetensorsFile& file_;
  const WeightStorage& storage_;
  QuantizeReport report_;
  double error_ = 0, norm_ = 0;
};

}  // namespace

QuantizeReport quantize_model(const std::string& source, const std::string& output, const ModelShape& shape,
                              const WeightStorage& storage,
                              const std::function<bool(int64_t, int64_t)>& progress) {
  check_storage(storage);
  if (storage.format != WeightFormat::kInt8 && !is_four_bit(storage.format)) {
    throw EngineError("USAGE", std::string("A model is quantised to int8, nf4 or fp4; found ") +
                                   weight_format_name(storage.format));
  }
  const SafetensorsFile file(source);
  const std::string prefix = bert_prefix(file);
  for (const auto& [key, entry] : file.table()) {
    const size_t dot = key.rfind(".SCB");
    if (key.find(".quant_state.") != std::string::npos ||
        (dot != std::string::npos && dot + 4 == key.size())) {
      throw EngineError("ALREADY_QUANTIZED", source + ": \"" + key + "\" shows that it is quantised already",
                        "Start from the model as it was before.");
    }
  }
  require_bert_tensors(file, prefix, shape);
  std::vector<std::string> modules;
  for (int64_t i = 0; i < shape.num_layers; i++) {
    for (const LinearModule& module : layer_linears(shape, i)) modules.push_back(prefix + module.name);
  }
  if (file.has(prefix + "pooler.dense.weight")) modules.push_back(prefix + "pooler.dense");
  Quantizer quantizer(file, storage);
  std::map<std::string, Tensor> tensors;
  int64_t done = 0, left_out = 0;
  const auto total = static_cast<int64_t>(modules.size());
  for (const std::string& module : modules) {
    quantizer.quantize(module, tensors);
    if (!progress(++done, total)) throw EngineError("ABORTED", "stopped; " + output + " was not written");
  }
  const std::string word = prefix + "embeddings.word_embeddings.weight";
  for (const auto& [key, entry] : file.table()) {
    if (tensors.count(key) != 0) continue;
    if (is_surplus(key, prefix, shape)) {
      left_out++;
      continue;
    }
    if (key != word) {
      tensors[key] = file.read(key);
      if (tensors[key].is_floating_point()) file.read_float(key);  // refuses NaN
      continue;
    }
    tensors[key] = file.read_float(key).to(at::kHalf);
    if (!tensors[key].isfinite().all().item<bool>()) {
      throw EngineError("NOT_FINITE", source + ": \"" + key + "\" holds weights beyond 65504, fp16's range");
    }
  }
  write_safetensors(output, tensors);
  QuantizeReport report = quantizer.report();
  report.left_out = left_out;
  return report;
}

}  // namespace peft
