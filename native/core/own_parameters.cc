#include "core/own_parameters.h"

#include <algorithm>
#include <charconv>
#include <functional>

#include "error.h"
#include "weights/bert_tensors.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

/// Where a parameter of BertModel lies: the block's name, its shape, and the rows in it.
struct Place {
  std::string block;
  std::vector<int64_t> shape;
  int64_t row = 0, rows = 0;
  bool trains = true;
};

EngineError unsupported(const std::string& name, const std::string& why) {
  return EngineError(
      "ADAPTER_UNSUPPORTED", "An adapter's own \"" + name + "\": " + why,
      "modules_to_save takes embeddings, LayerNorms, linear layers of the encoder and the pooler.");
}

struct LinearPlace {
  const char* module;
  const char* block;
  int64_t third;  // of query, key and value
};

constexpr LinearPlace kLinears[] = {
    {"attention.self.query", "qkv", 0},        {"attention.self.key", "qkv", 1},
    {"attention.self.value", "qkv", 2},        {"attention.output.dense", "attention_output", 0},
    {"intermediate.dense", "intermediate", 0}, {"output.dense", "output", 0},
};

Place place_in_layer(const std::string& name, const std::string& module, bool weight, const ModelShape& shape,
                     const std::string& layer) {
  const int64_t d = shape.hidden_size, f = shape.intermediate_size;
  const std::string tensor = weight ? ".weight" : ".bias";
  for (const LinearPlace& l : kLinears) {
    if (module != l.module) continue;
    const std::string block = l.block;
    const int64_t out = block == "intermediate" ? f : d, in = block == "output" ? f : d;
    const int64_t all = block == "qkv" ? 3 * d : out;
    std::vector<int64_t> whole = weight ? std::vector<int64_t>{all, in} : std::vector<int64_t>{all};
    return {layer + block + tensor, std::move(whole), l.third * d, out};
  }
  for (const char* norm : {"attention.output.LayerNorm", "output.LayerNorm"}) {
    if (module == norm) return {layer + module + tensor, {d}, 0, d};
  }
  throw unsupported(name, "no such parameter in this encoder");
}

Place locate(const std::string& name, const ModelShape& shape, bool has_pooler) {
  const int64_t d = shape.hidden_size;
  const size_t dot = name.rfind('.');
  const std::string module = name.substr(0, dot),
                    tensor = dot == std::string::npos ? "" : name.substr(dot + 1);
  const bool weight = tensor == "weight";
  if (weight || tensor == "bias") {
    if (weight && module == "embeddings.word_embeddings")
      return {name, {shape.vocab_size, d}, 0, shape.vocab_size};
    if (weight && module == "embeddings.position_embeddings")
      return {name, {shape.max_positions, d}, 0, shape.max_positions};
    if (weight && module == "embeddings.token_type_embeddings")
      return {name, {shape.type_vocab_size, d}, 0, shape.type_vocab_size};
    if (module == "embeddings.LayerNorm") return {name, {d}, 0, d};
    if (module == "pooler.dense" && has_pooler) {
      std::vector<int64_t> whole = weight ? std::vector<int64_t>{d, d} : std::vector<int64_t>{d};
      return {name, std::move(whole), 0, d, false};
    }
    static const std::string layers = "encoder.layer.";
    if (module.starts_with(layers)) {
      int64_t layer = -1;
      const char* end = module.data() + module.size();
      const auto [rest, error] = std::from_chars(module.data() + layers.size(), end, layer);
      if (error == std::errc() && rest != end && *rest == '.' && layer >= 0 && layer < shape.num_layers)
        return place_in_layer(name, std::string(rest + 1, end), weight, shape, std::to_string(layer) + ".");
    }
  }
  throw unsupported(name, "no such parameter in this encoder");
}

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

}  // namespace

bool OwnLayer::any() const {
  const auto linear = [](const LinearTensors& l) { return l.any(); };
  return linear(values.qkv) || linear(values.attention_output) || linear(values.intermediate) ||
         linear(values.output) || values.attention_norm.any() || values.output_norm.any();
}

OwnParameters::OwnParameters(const std::vector<OwnParameterSpec>& specs, const ModelShape& shape,
                             bool has_pooler)
    : shape_(shape) {
  for (const OwnParameterSpec& spec : specs) {
    Place place = locate(spec.name, shape, has_pooler);
    auto block = std::ranges::find(blocks_, place.block, &Block::name);
    if (block == blocks_.end()) {
      const Kind kind = !place.trains ? Kind::kStill : place.shape.size() > 1 ? Kind::kDecays : Kind::kTrains;
      blocks_.push_back({place.block, place.shape, kind, {}, {}, std::vector<bool>(3, false)});
      block = blocks_.end() - 1;
    }
    const size_t third = static_cast<size_t>(place.shape[0] > place.rows ? place.row / place.rows : 0);
    if (block->named_rows[third]) throw unsupported(spec.name, "it is there twice");
    block->named_rows[third] = true;
    parts_.push_back(
        {spec.name, spec.key, static_cast<size_t>(block - blocks_.begin()), place.row, place.rows});
  }
  for (const Part& part : parts_) {
    const Block& block = blocks_[part.block];
    const bool whole = part.rows == block.shape[0] || std::ranges::all_of(block.named_rows, std::identity());
    if (block.shape.size() > 1 && !whole)
      throw unsupported(part.name, "query, key and value are one matrix here, of which it names a part");
  }
}

int64_t OwnParameters::size(Kind kind) const {
  int64_t total = 0;
  for (const Block& block : blocks_) total += block.kind == kind ? elements(block.shape) : 0;
  return total;
}

int64_t OwnParameters::count() const {
  int64_t total = 0;
  for (const Part& part : parts_)
    total += elements(blocks_[part.block].shape) / blocks_[part.block].shape[0] * part.rows;
  return total;
}

void OwnParameters::bind(const Tensor& decaying, const Tensor& other, const Tensor& still) {
  const Tensor* const flat[] = {&decaying, &other, &still};
  int64_t used[] = {0, 0, 0};
  for (Block& block : blocks_) {
    const auto kind = static_cast<size_t>(block.kind);
    block.value = flat[kind]->narrow(0, used[kind], elements(block.shape)).view(block.shape);
    used[kind] += elements(block.shape);
  }
}

std::map<std::string, Tensor> OwnParameters::named(bool trained_alone) const {
  std::map<std::string, Tensor> tensors;
  for (const Part& part : parts_) {
    if (trained_alone && blocks_[part.block].kind == Kind::kStill) continue;
    tensors[part.key] = rows(part);
  }
  return tensors;
}

void OwnParameters::copy_base(const std::string& path, bool lenient) {
  if (empty()) return;
  const SafetensorsFile file(path);
  const std::string prefix = bert_prefix(file);
  const auto copy = [&](const std::string& name, const Tensor& to) {
    std::string key = prefix + name;
    const size_t norm = key.rfind("LayerNorm.");
    if (norm != std::string::npos) {
      const NormKeys keys = norm_keys(file, key.substr(0, norm) + "LayerNorm");
      key = key.ends_with("weight") ? keys.weight : keys.bias;
    }
    const bool plain = file.has(key) && file.table().at(key).shape == to.sizes().vec();
    if (plain) {
      to.copy_(file.read_float(key));
    } else if (!lenient) {
      throw unsupported(name, "the base model holds it in no plain numbers to begin with");
    }
  };
  for (const Part& part : parts_) copy(part.name, rows(part));
  // The biases that stand still beside those that an adapter has.
  const int64_t d = shape_.hidden_size;
  for (const Block& block : blocks_) {
    if (!block.name.ends_with(".qkv.bias")) continue;
    const std::string layer = "encoder.layer." + block.name.substr(0, block.name.find('.'));
    for (int64_t third = 0; third < 3; third++) {
      if (block.named_rows[static_cast<size_t>(third)]) continue;
      copy(layer + "." + kLinears[third].module + ".bias", block.value.narrow(0, third * d, d));
    }
  }
}

void OwnParameters::clear_still_gradients() const {
  const int64_t d = shape_.hidden_size;
  for (const Block& block : blocks_) {
    if (!block.name.ends_with(".qkv.bias")) continue;
    for (int64_t third = 0; third < 3; third++) {
      if (!block.named_rows[static_cast<size_t>(third)]) block.gradient.narrow(0, third * d, d).zero_();
    }
  }
}

const OwnParameters::Block* OwnParameters::find(const std::string& name) const {
  const auto block = std::ranges::find(blocks_, name, &Block::name);
  return block == blocks_.end() ? nullptr : &*block;
}

void OwnParameters::fill() {
  if (empty()) return;
  const auto put = [&](const std::string& name, Tensor& value, Tensor& gradient) {
    const Block* block = find(name);
    if (block == nullptr) return;
    value = block->value;
    gradient = block->gradient;
  };
  const std::string e = "embeddings.";
  EmbeddingTensors &v = embeddings_, &g = embedding_gradients_;
  put(e + "word_embeddings.weight", v.word, g.word);
  put(e + "position_embeddings.weight", v.position, g.position);
  put(e + "token_type_embeddings.weight", v.token_type, g.token_type);
  put(e + "LayerNorm.weight", v.norm.gamma, g.norm.gamma);
  put(e + "LayerNorm.bias", v.norm.beta, g.norm.beta);
  layers_.resize(static_cast<size_t>(shape_.num_layers));
  for (int64_t i = 0; i < shape_.num_layers; i++) {
    OwnLayer& own = layers_[static_cast<size_t>(i)];
    const std::string at = std::to_string(i) + ".";
    const auto linear = [&](const std::string& block, LinearTensors LayerTensors::*part) {
      LinearTensors &value = own.values.*part, &gradient = own.gradients.*part;
      put(at + block + ".weight", value.weight, gradient.weight);
      put(at + block + ".bias", value.bias, gradient.bias);
    };
    const auto norm = [&](const std::string& module, NormTensors LayerTensors::*part) {
      NormTensors &value = own.values.*part, &gradient = own.gradients.*part;
      put(at + module + ".weight", value.gamma, gradient.gamma);
      put(at + module + ".bias", value.beta, gradient.beta);
    };
    linear("qkv", &LayerTensors::qkv);
    linear("attention_output", &LayerTensors::attention_output);
    linear("intermediate", &LayerTensors::intermediate);
    linear("output", &LayerTensors::output);
    norm("attention.output.LayerNorm", &LayerTensors::attention_norm);
    norm("output.LayerNorm", &LayerTensors::output_norm);
  }
}

void OwnParameters::build(const uint64_t& version, WeightFormat products) {
  fill();
  for (OwnLayer& own : layers_) {
    const auto linear = [&](const LinearTensors& l) {
      return l.weight.defined() ? make_trained_linear(l.weight, version, products) : nullptr;
    };
    own.qkv = linear(own.values.qkv);
    own.attention_output = linear(own.values.attention_output);
    own.intermediate = linear(own.values.intermediate);
    own.output = linear(own.values.output);
  }
}

}  // namespace peft
