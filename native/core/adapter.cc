#include "core/adapter.h"

#include <ATen/ops/zeros.h>

#include <charconv>

#include "core/adapter_init.h"
#include "error.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

constexpr std::string_view kLayerPrefix = "encoder.layer.";

struct NamedKind {
  std::string_view suffix;
  LinearKind kind;
};

constexpr NamedKind kKinds[] = {
    {"attention.self.query", LinearKind::kQuery},
    {"attention.self.key", LinearKind::kKey},
    {"attention.self.value", LinearKind::kValue},
    {"attention.output.dense", LinearKind::kAttentionOutput},
    {"intermediate.dense", LinearKind::kIntermediate},
    {"output.dense", LinearKind::kOutput},
};

ModulePath parse_module_name(const std::string& name, const ModelShape& shape, bool has_pooler) {
  if (name == "pooler.dense" && has_pooler) return {LinearKind::kPooler};
  if (name.compare(0, kLayerPrefix.size(), kLayerPrefix) == 0) {
    int64_t layer = -1;
    const char* begin = name.data() + kLayerPrefix.size();
    const auto [rest, error] = std::from_chars(begin, name.data() + name.size(), layer);
    if (error == std::errc() && layer >= 0 && layer < shape.num_layers && *rest == '.') {
      for (const NamedKind& kind : kKinds) {
        if (kind.suffix == rest + 1) return {kind.kind, layer};
      }
    }
  }
  throw EngineError(
      "ADAPTER_UNSUPPORTED", "LoRA on \"" + name + "\": not a linear layer of this encoder",
      "Targets are query, key, value, attention.output.dense, intermediate.dense and output.dense.");
}

/// {in, out} of a kind.
std::pair<int64_t, int64_t> features(LinearKind kind, const ModelShape& shape) {
  const int64_t d = shape.hidden_size, f = shape.intermediate_size;
  if (kind == LinearKind::kIntermediate) return {d, f};
  if (kind == LinearKind::kOutput) return {f, d};
  return {d, d};
}

std::string file_key(const std::string& module, const char* matrix) {
  return "base_model.model." + module + ".lora_" + matrix + ".weight";
}

/// The article's script wrapped BertModel once more before get_peft_model, which doubles `model.` in every
/// key.
std::string canonical_key(const std::string& key) {
  static const std::string doubled = "base_model.model.model.";
  return key.compare(0, doubled.size(), doubled) == 0 ? "base_model.model." + key.substr(doubled.size())
                                                      : key;
}

}  // namespace

Adapter::Adapter(const AdapterSpec& spec, const ModelShape& shape, bool has_pooler, at::Device device)
    : dropout_(spec.dropout), init_(spec.init) {
  int64_t total = 0, trained = 0;
  for (const LoraModuleSpec& m : spec.modules) {
    const ModulePath path = parse_module_name(m.name, shape, has_pooler);
    const auto [in, out] = features(path.kind, shape);
    total += m.rank * (in + out);
    if (path.kind != LinearKind::kPooler) trained += m.rank * (in + out);
    modules_.push_back({m.name, path, m.scale, {}, {}, {}, {}});
  }
  parameters_ = at::zeros({total}, at::TensorOptions().dtype(at::kFloat).device(device));
  own(parameters_.narrow(0, 0, trained), trained);
  int64_t position = 0, inert = trained;
  for (size_t i = 0; i < modules_.size(); i++) {
    LoraModule& m = modules_[i];
    const int64_t rank = spec.modules[i].rank;
    const auto [in, out] = features(m.path.kind, shape);
    const bool trains = m.path.kind != LinearKind::kPooler;
    int64_t& at = trains ? position : inert;
    const auto take = [&](int64_t rows, int64_t columns) {
      const Tensor view = parameters_.narrow(0, at, rows * columns).view({rows, columns});
      at += rows * columns;
      return view;
    };
    m.a = take(rank, in);
    m.b = take(out, rank);
    if (!trains) continue;
    name(file_key(m.name, "A"), m.a);
    name(file_key(m.name, "B"), m.b);
    m.grad_a = gradient_of(m.a);
    m.grad_b = gradient_of(m.b);
  }
}

void Adapter::initialize(uint64_t seed) {
  for (size_t i = 0; i < modules_.size(); i++) {
    LoraModule& m = modules_[i];
    const InitialFactors begin =
        initial_factors(init_, m.a.size(0), m.a.size(1), m.b.size(0), {seed, static_cast<uint32_t>(i)});
    m.a.copy_(begin.a);
    m.b.copy_(begin.b);
  }
  changed();
}

void Adapter::load(const std::string& path) {
  const SafetensorsFile file(path);
  std::map<std::string, std::string> found;  // canonical key -> key in the file
  for (const auto& [key, entry] : file.table()) {
    if (!found.emplace(canonical_key(key), key).second) {
      throw EngineError("ADAPTER_MISMATCH",
                        path + ": \"" + canonical_key(key) + "\" is there in both key layouts",
                        "Keep one of the two.");
    }
  }
  std::map<std::string, Tensor> wanted = named_weights();
  for (const auto& [key, original] : found) {
    if (wanted.count(key) == 0) {
      throw EngineError(
          "ADAPTER_MISMATCH",
          path + ": unexpected tensor \"" + original + "\": adapter_config.json names no such module",
          "adapter_config.json and adapter_model.safetensors do not belong together.");
    }
  }
  for (auto& [key, target] : wanted) {
    const auto at = found.find(key);
    if (at == found.end()) {
      throw EngineError("ADAPTER_MISMATCH", path + ": tensor \"" + key + "\" is missing",
                        "adapter_config.json and adapter_model.safetensors do not belong together, or the "
                        "base model differs.");
    }
    const Tensor value = file.read_float(at->second);
    if (value.sizes() != target.sizes()) {
      throw EngineError(
          "ADAPTER_MISMATCH",
          path + ": tensor \"" + key + "\" does not have the shape that rank and base model ask for",
          "The adapter was made for a base model of another size, or with another rank.");
    }
    target.copy_(value);
  }
  changed();
}

void Adapter::save(const std::string& path) const { write_safetensors(path, named_weights()); }

std::map<std::string, Tensor> Adapter::named_weights() const {
  std::map<std::string, Tensor> tensors;
  for (const LoraModule& m : modules_) {
    tensors[file_key(m.name, "A")] = m.a;
    tensors[file_key(m.name, "B")] = m.b;
  }
  return tensors;
}

}  // namespace peft
