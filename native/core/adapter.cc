#include "core/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <charconv>

#include "core/adapter_init.h"
#include "core/base_matrices.h"
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

/// The tensors of a module, by what follows its name in the file.
struct ModulePart {
  const char* suffix;
  Tensor LoraModule::*value;
  Tensor LoraModule::*gradient;
};

constexpr ModulePart kParts[] = {
    {".lora_A.weight", &LoraModule::a, &LoraModule::grad_a},
    {".lora_B.weight", &LoraModule::b, &LoraModule::grad_b},
    {".lora_B.bias", &LoraModule::bias, &LoraModule::grad_bias},
    // PEFT leaves `.weight` out here.
    {".lora_magnitude_vector", &LoraModule::magnitude, &LoraModule::grad_magnitude},
};

std::string file_key(const LoraModule& module, const ModulePart& part) {
  return "base_model.model." + module.name + part.suffix;
}

std::map<std::string, Tensor> named_values(const std::vector<LoraModule>& modules) {
  std::map<std::string, Tensor> tensors;
  for (const LoraModule& m : modules) {
    for (const ModulePart& part : kParts) {
      if ((m.*part.value).defined()) tensors[file_key(m, part)] = m.*part.value;
    }
  }
  return tensors;
}

/// The article's script wrapped BertModel once more before get_peft_model, which doubles `model.` in every
/// key.
std::string canonical_key(const std::string& key) {
  static const std::string doubled = "base_model.model.model.";
  return key.compare(0, doubled.size(), doubled) == 0 ? "base_model.model." + key.substr(doubled.size())
                                                      : key;
}

/// With bias "all" PEFT writes the biases of modules_to_save once more under the names that its wrapper has
/// for them.
bool is_wrapped_bias(const std::string& key) {
  return key.ends_with(".original_module.bias") || key.ends_with(".modules_to_save.bias");
}

}  // namespace

Adapter::Adapter(const AdapterSpec& spec, const ModelShape& shape, bool has_pooler, at::Device device,
                 WeightFormat products)
    : dropout_(spec.dropout),
      init_(spec.init),
      init_iterations_(spec.init_iterations),
      given_(spec.a),
      own_(spec.parameters, shape, has_pooler) {
  if (spec.dora && (spec.bias || splits_base(init_))) {
    throw EngineError("ADAPTER_UNSUPPORTED",
                      std::string("DoRA with ") + (spec.bias ? "a bias on B" : "parts of the base weights"));
  }
  const int64_t vectors = (spec.dora ? 1 : 0) + (spec.bias ? 1 : 0);
  int64_t total = 0, trained = 0;
  for (const LoraModuleSpec& m : spec.modules) {
    const ModulePath path = parse_module_name(m.name, shape, has_pooler);
    const auto [in, out] = features(path.kind, shape);
    const int64_t size = m.rank * (in + out) + vectors * out;
    total += size;
    if (path.kind != LinearKind::kPooler) trained += size;
    LoraModule module;
    module.name = m.name;
    module.path = path;
    module.scale = m.scale;
    modules_.push_back(std::move(module));
  }
  // LoRA's matrices, then what else decays, what does not, and what does not train: LoRA's pooler and a copy
  // of it.
  const int64_t decayed = trained + own_.decaying(), all_trained = decayed + own_.other();
  const int64_t all = total + own_.decaying() + own_.other() + own_.still();
  parameters_ = at::zeros({all}, at::TensorOptions().dtype(at::kFloat).device(device));
  hold(parameters_.narrow(0, 0, all_trained), decayed);
  own_.bind(parameters_.narrow(0, trained, own_.decaying()), parameters_.narrow(0, decayed, own_.other()),
            parameters_.narrow(0, all - own_.still(), own_.still()));
  for (const auto& [key, view] : own_.named(true)) name(key, view);
  own_.build(version(), products);
  int64_t position = 0, inert = all_trained;
  for (size_t i = 0; i < modules_.size(); i++) {
    LoraModule& m = modules_[i];
    const int64_t rank = spec.modules[i].rank;
    const auto [in, out] = features(m.path.kind, shape);
    const bool trains = m.path.kind != LinearKind::kPooler;
    int64_t& at = trains ? position : inert;
    const auto take = [&](at::IntArrayRef view) {
      const int64_t size = c10::multiply_integers(view);
      at += size;
      return parameters_.narrow(0, at - size, size).view(view);
    };
    m.a = take({rank, in});
    m.b = take({out, rank});
    if (spec.bias) m.bias = take({out});
    if (spec.dora) m.magnitude = take({out});
    for (const ModulePart& part : kParts) {
      if (trains && (m.*part.value).defined()) name(file_key(m, part), m.*part.value);
    }
  }
}

void Adapter::require_gradient() {
  if (gradient().defined()) return;
  TrainedParameters::require_gradient();
  own_.connect([&](const Tensor& view) { return gradient_of(view); });
  for (LoraModule& m : modules_) {
    if (m.path.kind == LinearKind::kPooler) continue;
    for (const ModulePart& part : kParts) {
      if ((m.*part.value).defined()) m.*part.gradient = gradient_of(m.*part.value);
    }
  }
}

int64_t Adapter::parameter_count() const {
  return parameters_.numel() - own_.decaying() - own_.other() - own_.still() + own_.count();
}

void Adapter::initialize(uint64_t seed, const BaseMatrices& base) {
  own_.copy_base(base.file(), false);
  for (size_t i = 0; i < modules_.size(); i++) {
    LoraModule& m = modules_[i];
    const InitKey key{seed, static_cast<uint32_t>(i)};
    const int64_t rank = m.a.size(0);
    InitialFactors begin;
    if (splits_base(init_)) {
      begin = begin_in_base(m, key, base);
    } else if (init_ == AdapterInit::kLoftq) {
      begin = factors_of(base.original(m) - base.held(m), AdapterInit::kPissa, 0, rank, m.scale, key);
    } else {
      begin = initial_factors(init_, rank, m.a.size(1), m.b.size(0), key);
    }
    m.a.copy_(begin.a);
    m.b.copy_(begin.b);
    if (const auto given = given_.find(m.name); given != given_.end()) {
      if (static_cast<int64_t>(given->second.size()) != m.a.numel()) {
        throw EngineError("USAGE", "A of " + m.name + " has " + std::to_string(given->second.size()) +
                                       " numbers, expected " + std::to_string(m.a.numel()));
      }
      m.a.copy_(at::tensor(given->second).view(m.a.sizes()));
    }
    if (m.bias.defined()) m.bias.zero_();
    if (m.magnitude.defined()) m.magnitude.copy_(row_norms(m, base.held(m).to(m.a.device())));
  }
  changed();
}

void Adapter::load(const std::string& path, const BaseMatrices& base) {
  own_.copy_base(base.file(), true);
  const SafetensorsFile file(path);
  std::map<std::string, std::string> found;  // canonical key -> key in the file
  for (const auto& [key, entry] : file.table()) {
    if (is_wrapped_bias(key)) continue;
    if (!found.emplace(canonical_key(key), key).second) {
      throw EngineError("ADAPTER_MISMATCH",
                        path + ": \"" + canonical_key(key) + "\" is there in both key layouts",
                        "Keep one of the two.");
    }
  }
  std::map<std::string, Tensor> wanted = named_values(modules_);
  wanted.merge(own_.named(false));
  for (const auto& [key, original] : found) {
    if (wanted.count(key) == 0) {
      throw EngineError(
          "ADAPTER_MISMATCH",
          path + ": unexpected tensor \"" + original + "\": adapter_config.json names no such module",
          "adapter_config.json and adapter_model.safetensors do not belong together.");
    }
  }
  const auto read = [&](const std::string& key) {
    const auto at = found.find(key);
    if (at == found.end()) {
      throw EngineError("ADAPTER_MISMATCH", path + ": tensor \"" + key + "\" is missing",
                        "adapter_config.json and adapter_model.safetensors do not belong together, or the "
                        "base model differs.");
    }
    return file.read_float(at->second);
  };
  if (splits_base(init_)) {
    for (LoraModule& m : modules_) {
      const Tensor a = read(file_key(m, kParts[0])), b = read(file_key(m, kParts[1]));
      const int64_t rank = m.a.size(0), in = m.a.size(1), out = m.b.size(0);
      if (a.sizes() != at::IntArrayRef{2 * rank, in} || b.sizes() != at::IntArrayRef{out, 2 * rank}) continue;
      m.a.copy_(a.narrow(0, 0, rank));
      m.b.copy_(b.narrow(1, 0, rank));
      m.origin_a = a.narrow(0, rank, rank).to(m.a.device());
      m.origin_b = b.narrow(1, rank, rank).neg().to(m.b.device());
      wanted.erase(file_key(m, kParts[0]));
      wanted.erase(file_key(m, kParts[1]));
    }
  }
  for (auto& [key, target] : wanted) {
    const Tensor value = read(key);
    if (value.sizes() != target.sizes()) {
      throw EngineError(
          "ADAPTER_MISMATCH",
          path + ": tensor \"" + key + "\" does not have the shape that rank and base model ask for",
          "The adapter was made for a base model of another size, or with another rank.");
    }
    target.copy_(value);
  }
  for (size_t i = 0; splits_base(init_) && i < modules_.size(); i++) {
    if (!modules_[i].origin_a.defined()) begin_in_base(modules_[i], {0, static_cast<uint32_t>(i)}, base);
  }
  changed();
}

InitialFactors Adapter::begin_in_base(LoraModule& m, const InitKey& key, const BaseMatrices& base) const {
  const InitialFactors begin = factors_of(base.held(m), init_, init_iterations_, m.a.size(0), m.scale, key);
  m.origin_a = begin.a.to(m.a.device());
  m.origin_b = begin.b.to(m.b.device());
  return begin;
}

Tensor row_norms(const LoraModule& module, const Tensor& base) {
  return at::linalg_vector_norm(at::addmm(base, module.b, module.a, 1, module.scale), 2, at::IntArrayRef{1});
}

void Adapter::save(const std::string& path) const { write_safetensors(path, named_weights()); }

std::map<std::string, Tensor> Adapter::named_weights() const {
  std::map<std::string, Tensor> tensors = named_values(modules_);
  tensors.merge(own_.named(false));
  for (const LoraModule& m : modules_) {
    if (!m.origin_a.defined()) continue;
    tensors[file_key(m, kParts[0])] = at::cat({m.a, m.origin_a}, 0);
    tensors[file_key(m, kParts[1])] = at::cat({m.b, m.origin_b.neg()}, 1);
  }
  return tensors;
}

}  // namespace peft
