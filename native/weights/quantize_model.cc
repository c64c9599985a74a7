#include "weights/quantize_model.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <vector>

#include "error.h"
#include "weights/bert_weights.h"
#include "weights/quant_file.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

struct LinearModule {
  std::string name;
  int64_t out, in;
};

std::vector<LinearModule> linear_modules(const SafetensorsFile& file, const std::string& prefix,
                                         const ModelShape& shape) {
  const int64_t d = shape.hidden_size, f = shape.intermediate_size;
  std::vector<LinearModule> modules;
  for (int64_t i = 0; i < shape.num_layers; i++) {
    const std::string layer = prefix + "encoder.layer." + std::to_string(i) + ".";
    for (const char* name :
         {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"}) {
      modules.push_back({layer + name, d, d});
    }
    modules.push_back({layer + "intermediate.dense", f, d});
    modules.push_back({layer + "output.dense", d, f});
  }
  if (file.has(prefix + "pooler.dense.weight")) modules.push_back({prefix + "pooler.dense", d, d});
  return modules;
}

/// Layers beyond those that config.json counts are no part of the model.
bool beyond_layers(const std::string& key, const std::string& prefix, const ModelShape& shape) {
  const std::string layers = prefix + "encoder.layer.";
  return key.starts_with(layers) &&
         std::strtoll(key.c_str() + layers.size(), nullptr, 10) >= shape.num_layers;
}

/// Adds up the report while matrices are quantised.
class Quantizer {
 public:
  Quantizer(const SafetensorsFile& file, const WeightStorage& storage) : file_(file), storage_(storage) {}

  void quantize(const LinearModule& linear, std::map<std::string, Tensor>& tensors) {
    const std::string &module = linear.name, key = module + ".weight";
    if (!file_.has(key)) {
      throw EngineError("MODEL_CORRUPT", file_.path() + ": tensor \"" + key + "\" is missing",
                        "config.json and model.safetensors do not belong together.");
    }
    const TensorEntry& entry = file_.table().at(key);
    if (entry.shape != std::vector<int64_t>{linear.out, linear.in}) {
      throw EngineError("MODEL_CORRUPT",
                        file_.path() + ": tensor \"" + key + "\" has shape " + format_shape(entry.shape) +
                            ", config.json asks for " + format_shape({linear.out, linear.in}),
                        "config.json and model.safetensors do not belong together.");
    }
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
  const std::vector<LinearModule> modules = linear_modules(file, prefix, shape);
  Quantizer quantizer(file, storage);
  std::map<std::string, Tensor> tensors;
  for (const auto& [key, entry] : file.table()) {
    const size_t dot = key.rfind(".SCB");
    if (key.find(".quant_state.") != std::string::npos ||
        (dot != std::string::npos && dot + 4 == key.size())) {
      throw EngineError("ALREADY_QUANTIZED", source + ": \"" + key + "\" shows that it is quantised already",
                        "Start from the model as it was before.");
    }
  }
  int64_t done = 0;
  const auto total = static_cast<int64_t>(modules.size());
  for (const LinearModule& module : modules) {
    quantizer.quantize(module, tensors);
    if (!progress(++done, total)) throw EngineError("ABORTED", "stopped; " + output + " was not written");
  }
  const std::string word = prefix + "embeddings.word_embeddings.weight";
  for (const auto& [key, entry] : file.table()) {
    if (tensors.count(key) != 0 || beyond_layers(key, prefix, shape)) continue;
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
  return quantizer.report();
}

}  // namespace peft
