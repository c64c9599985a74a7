#include "weights/bert_tensors.h"

#include <charconv>

#include "error.h"

namespace peft {
namespace {

std::string format_shape(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

void require_norm(const SafetensorsFile& file, const std::string& norm, int64_t size) {
  const NormKeys keys = norm_keys(file, norm);
  require_tensor(file, keys.weight, {size});
  require_tensor(file, keys.bias, {size});
}

}  // namespace

std::vector<LinearModule> layer_linears(const ModelShape& shape, int64_t layer) {
  const int64_t d = shape.hidden_size, f = shape.intermediate_size;
  const std::string at = "encoder.layer." + std::to_string(layer) + ".";
  return {{at + "attention.self.query", d, d}, {at + "attention.self.key", d, d},
          {at + "attention.self.value", d, d}, {at + "attention.output.dense", d, d},
          {at + "intermediate.dense", f, d},   {at + "output.dense", d, f}};
}

std::string bert_prefix(const SafetensorsFile& file) {
  for (const char* prefix : {"", "bert.", "model."}) {
    if (file.has(std::string(prefix) + "embeddings.word_embeddings.weight")) return prefix;
  }
  throw EngineError(
      "MODEL_CORRUPT",
      file.path() +
          ": no tensor embeddings.word_embeddings.weight (nor below bert.); not the weights of a BertModel",
      "Give a folder that transformers' BertModel.save_pretrained wrote.");
}

void require_tensor(const SafetensorsFile& file, const std::string& key, at::IntArrayRef expected) {
  if (!file.has(key)) {
    throw EngineError("MODEL_CORRUPT", file.path() + ": tensor \"" + key + "\" is missing",
                      "config.json and model.safetensors do not belong together, or the file is incomplete.");
  }
  const std::vector<int64_t>& found = file.table().at(key).shape;
  if (at::IntArrayRef(found) != expected) {
    throw EngineError("MODEL_CORRUPT",
                      file.path() + ": tensor \"" + key + "\" has shape " + format_shape(found) +
                          ", config.json asks for " + format_shape(expected),
                      "config.json and model.safetensors do not belong together.");
  }
}

NormKeys norm_keys(const SafetensorsFile& file, const std::string& norm) {
  if (file.has(norm + ".gamma")) return {norm + ".gamma", norm + ".beta"};
  return {norm + ".weight", norm + ".bias"};
}

void require_bert_tensors(const SafetensorsFile& file, const std::string& prefix, const ModelShape& shape) {
  const int64_t d = shape.hidden_size;
  require_tensor(file, prefix + "embeddings.word_embeddings.weight", {shape.vocab_size, d});
  require_tensor(file, prefix + "embeddings.position_embeddings.weight", {shape.max_positions, d});
  require_tensor(file, prefix + "embeddings.token_type_embeddings.weight", {shape.type_vocab_size, d});
  require_norm(file, prefix + "embeddings.LayerNorm", d);
  for (int64_t i = 0; i < shape.num_layers; i++) {
    for (const LinearModule& module : layer_linears(shape, i)) {
      require_tensor(file, prefix + module.name + ".weight", {module.out, module.in});
      require_tensor(file, prefix + module.name + ".bias", {module.out});
    }
    const std::string layer = prefix + "encoder.layer." + std::to_string(i) + ".";
    require_norm(file, layer + "attention.output.LayerNorm", d);
    require_norm(file, layer + "output.LayerNorm", d);
  }
  const std::string pooler = prefix + "pooler.dense.weight";
  if (file.has(pooler)) require_tensor(file, pooler, {d, d});
}

bool is_surplus(const std::string& key, const std::string& prefix, const ModelShape& shape) {
  const std::string layers = prefix + "encoder.layer.";
  if (!key.starts_with(layers)) return false;
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(key.data() + layers.size(), key.data() + key.size(), layer);
  return error == std::errc() && *end == '.' && layer >= shape.num_layers;
}

}  // namespace peft
