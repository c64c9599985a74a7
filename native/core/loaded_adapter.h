#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/adam.h"
#include "core/adapter_layers.h"
#include "core/deferred_steps.h"

namespace peft {

/// The name of an adapter where a call gives none, as in PEFT.
inline constexpr const char* kDefaultAdapter = "default";

/// An adapter as a session holds it: its weights, what is packed of them, and, once it is trained, Adam's
/// moments and the steps that nobody has waited for. Or one that is merged into the base: the same adapter
/// again, and weights of the base with it in them.
class LoadedAdapter {
 public:
  LoadedAdapter(std::unique_ptr<Adapter> adapter, const ModelShape& shape)
      : adapter_(std::move(adapter)), layers_(*adapter_, shape) {}
  LoadedAdapter(const LoadedAdapter& from, std::string name, std::unique_ptr<MergedWeights> merged)
      : adapter_(from.adapter_), layers_(*adapter_, std::move(merged)), merged_from_(std::move(name)) {}

  Adapter& weights() const { return *adapter_; }
  /// The name of the adapter that is merged here, or empty.
  const std::string& merged_from() const { return merged_from_; }
  /// Numbers of its own.
  int64_t parameter_count() const { return merged_from_.empty() ? adapter_->parameter_count() : 0; }
  AdapterLayers& layers() { return layers_; }
  const AdapterLayers& layers() const { return layers_; }
  /// With zero moments before its first step; asks for the gradient too.
  Adam& adam() {
    adapter_->require_gradient();
    if (!adam_) adam_ = std::make_unique<Adam>(*adapter_);
    return *adam_;
  }
  DeferredSteps& deferred() { return deferred_; }
  /// What it takes as it stands: weights, what is packed of them, and the gradient if it is trained; or the
  /// weights that it was merged into.
  int64_t bytes() const {
    if (!merged_from_.empty()) return layers_.bytes();
    int64_t total = 4 * adapter_->parameter_count() + layers_.bytes();
    const auto add = [&](const Tensor& t) { total += t.defined() ? static_cast<int64_t>(t.nbytes()) : 0; };
    add(adapter_->gradient());
    for (const LoraModule& m : adapter_->modules()) {
      add(m.origin_a);
      add(m.origin_b);
    }
    return total;
  }

 private:
  std::shared_ptr<Adapter> adapter_;
  AdapterLayers layers_;
  std::string merged_from_;
  std::unique_ptr<Adam> adam_;
  DeferredSteps deferred_;
};

/// Which adapter each text of a batch is encoded with.
struct AdapterChoice {
  /// All texts with the default adapter, if there is one, or with the base model.
  AdapterChoice(bool use_default) : texts(use_default ? Texts::kDefault : Texts::kBase) {}
  /// All texts with one adapter.
  AdapterChoice(const char* name) : AdapterChoice(std::string(name)) {}
  AdapterChoice(std::string name) : texts(Texts::kNamed), names({std::move(name)}) {}
  /// Text i with names[of_text[i]], or with the base model where that is -1.
  AdapterChoice(std::vector<std::string> all, std::vector<int32_t> of_each)
      : texts(Texts::kEach), names(std::move(all)), of_text(std::move(of_each)) {}

  enum class Texts { kBase, kDefault, kNamed, kEach } texts;
  std::vector<std::string> names = {};
  std::vector<int32_t> of_text = {};
};

/// Those of a session, by name.
using LoadedAdapters = std::map<std::string, LoadedAdapter>;

/// Throws USAGE where there is none of the name.
LoadedAdapter& adapter_named(LoadedAdapters& adapters, const std::string& name, const char* caller);
/// Throws USAGE for one that is merged, under either name.
void require_unmerged(const LoadedAdapters& adapters, const std::string& name, const char* caller);

/// The adapters that the texts of a batch take, and the place of each text's among them: -1 for none, and no
/// places where all texts take the first or there is none.
struct TextAdapters {
  std::vector<LoadedAdapter*> adapters = {};
  std::vector<int32_t> of_text = {};
};
TextAdapters text_adapters(LoadedAdapters& adapters, const AdapterChoice& choice, int64_t texts);

}  // namespace peft
