#include "core/model_parameters.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "error.h"
#include "weights/linear_parts.h"
#include "weights/quant_file.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

const std::string kEmbeddings = "embeddings.";

std::string layer_name(int64_t index) { return "encoder.layer." + std::to_string(index) + "."; }

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

}  // namespace

ModelParameters::ModelParameters(const std::string& path, const ModelShape& shape, WeightFormat products,
                                 at::Device device)
    : shape_(shape), products_(products) {
  const SafetensorsFile file(path);
  prefix_ = bert_prefix(file);
  if (const auto stored = first_stored_format(file, prefix_ + "encoder.layer.")) {
    throw EngineError(
        "ALREADY_QUANTIZED",
        path + ": the weights are " + weight_format_name(*stored) + "; quantised weights do not train",
        "Start from the model before it was quantised, or train a LoRA adapter.");
  }
  require_bert_tensors(file, prefix_, shape);
  lay_out(file);
  const int64_t total = parts_.back().offset + elements(parts_.back().shape);
  const auto first_bias = std::ranges::find_if(parts_, [](const Part& p) { return p.shape.size() == 1; });
  hold(at::empty({total}, at::TensorOptions().dtype(at::kFloat).device(device)), first_bias->offset);
  require_gradient();
  for (const Part& p : parts_) name(prefix_ + p.key, part(trained(), p.key));
  read(file);
  const std::map<std::string, Tensor> trains = named_weights();
  for (const auto& [key, entry] : file.table()) {
    if (trains.count(key) != 0) continue;
    const bool is_float = entry.dtype == "F16" || entry.dtype == "BF16" || entry.dtype == "F64";
    untouched_[key] = is_float ? file.read_float(key) : file.read(key);
  }
  has_pooler_ = file.has(prefix_ + "pooler.dense.weight");
}

void ModelParameters::lay_out(const SafetensorsFile& file) {
  const int64_t d = shape_.hidden_size;
  const std::string first_norm = prefix_ + kEmbeddings + "LayerNorm";
  const NormKeys keys = norm_keys(file, first_norm);
  norm_ = {keys.weight.substr(first_norm.size()), keys.bias.substr(first_norm.size())};
  const auto add = [&](const std::string& key, std::vector<int64_t> shape) {
    const int64_t offset = parts_.empty() ? 0 : parts_.back().offset + elements(parts_.back().shape);
    parts_.push_back({key, std::move(shape), offset});
    by_key_[key] = parts_.back();
  };
  const auto add_norm = [&](const std::string& norm) {
    add(norm + norm_.weight, {d});
    add(norm + norm_.bias, {d});
  };
  add(kEmbeddings + "word_embeddings.weight", {shape_.vocab_size, d});
  add(kEmbeddings + "position_embeddings.weight", {shape_.max_positions, d});
  add(kEmbeddings + "token_type_embeddings.weight", {shape_.type_vocab_size, d});
  for (int64_t i = 0; i < shape_.num_layers; i++) {
    for (const LinearModule& m : layer_linears(shape_, i)) add(m.name + ".weight", {m.out, m.in});
  }
  add_norm(kEmbeddings + "LayerNorm");
  for (int64_t i = 0; i < shape_.num_layers; i++) {
    for (const LinearModule& m : layer_linears(shape_, i)) add(m.name + ".bias", {m.out});
    add_norm(layer_name(i) + "attention.output.LayerNorm");
    add_norm(layer_name(i) + "output.LayerNorm");
  }
}

void ModelParameters::read(const SafetensorsFile& file) {
  for (const Part& p : parts_) require_tensor(file, prefix_ + p.key, p.shape);
  for (const Part& p : parts_) part(trained(), p.key).copy_(file.read_float(prefix_ + p.key));
  changed();
}

Tensor ModelParameters::part(const Tensor& flat, const std::string& key, int64_t count) const {
  const Part& p = by_key_.at(key);
  std::vector<int64_t> shape = p.shape;
  shape[0] *= count;
  return flat.narrow(0, p.offset, elements(shape)).view(shape);
}

ModelTensors ModelParameters::tensors(const Tensor& flat) const {
  const auto norm = [&](const std::string& key) {
    return NormTensors{part(flat, key + norm_.weight), part(flat, key + norm_.bias)};
  };
  const auto linear = [&](const std::string& first, int64_t modules = 1) {
    return LinearTensors{part(flat, first + ".weight", modules), part(flat, first + ".bias", modules)};
  };
  ModelTensors all;
  all.embeddings = {part(flat, kEmbeddings + "word_embeddings.weight"),
                    part(flat, kEmbeddings + "position_embeddings.weight"),
                    part(flat, kEmbeddings + "token_type_embeddings.weight"),
                    norm(kEmbeddings + "LayerNorm")};
  for (int64_t i = 0; i < shape_.num_layers; i++) {
    const std::string at = layer_name(i);
    all.layers.push_back({linear(at + "attention.self.query", 3), linear(at + "attention.output.dense"),
                          linear(at + "intermediate.dense"), linear(at + "output.dense"),
                          norm(at + "attention.output.LayerNorm"), norm(at + "output.LayerNorm")});
  }
  return all;
}

BertWeights ModelParameters::weights() const {
  const ModelTensors all = tensors(trained());
  const auto norm = [&](const NormTensors& n) {
    return LayerNormWeights{n.gamma, n.beta, shape_.layer_norm_eps};
  };
  const auto linear = [&](const LinearTensors& l) {
    return make_trained_linear(l.weight, version(), products_);
  };
  BertWeights w;
  w.word = all.embeddings.word;
  w.position = all.embeddings.position;
  w.token_type = all.embeddings.token_type[0];
  w.embedding_norm = norm(all.embeddings.norm);
  for (const LayerTensors& l : all.layers) {
    w.layers.push_back({linear(l.qkv), linear(l.attention_output), linear(l.intermediate), linear(l.output),
                        l.qkv.bias, l.attention_output.bias, l.intermediate.bias, l.output.bias,
                        norm(l.attention_norm), norm(l.output_norm), plain_type(products_)});
  }
  w.has_pooler = has_pooler_;
  const int64_t d = shape_.hidden_size;
  w.parameters = trained_count() + (has_pooler_ ? d * d + d : 0);
  return w;
}

int64_t ModelParameters::untouched_bytes() const {
  int64_t total = 0;
  for (const auto& [key, tensor] : untouched_) total += static_cast<int64_t>(tensor.nbytes());
  return total;
}

void ModelParameters::load(const std::string& path) { read(SafetensorsFile(path)); }

void ModelParameters::save(const std::string& path) const {
  std::map<std::string, Tensor> tensors = named_weights();
  tensors.insert(untouched_.begin(), untouched_.end());
  write_safetensors(path, tensors);
}

}  // namespace peft
