#pragma once

#include <memory>
#include <vector>

#include "core/adapter.h"
#include "core/merged_weights.h"
#include "core/packed_lora.h"

namespace peft {

/// One adapter's part in one layer of the encoder.
struct LayerFactors {
  PackedLora qkv, attention_output, intermediate, output;
};

/// An adapter layer by layer, as the encoder runs it. The adapter must outlive it.
class AdapterLayers {
 public:
  AdapterLayers(Adapter& adapter, const ModelShape& shape);
  /// Through weights that it was merged into: nothing of it runs beside them.
  AdapterLayers(Adapter& adapter, std::unique_ptr<MergedWeights> merged);

  LayerFactors& layer(int64_t index) { return layers_[static_cast<size_t>(index)]; }
  const std::vector<LayerFactors>& all() const { return layers_; }
  /// Which of the adapter's changes its weights are.
  uint64_t version() const { return adapter_->version(); }
  /// Its own parameters, where it has any.
  const OwnParameters* own() const { return adapter_->own().empty() ? nullptr : &adapter_->own(); }
  /// What it was merged into, or null.
  const MergedWeights* merged() const { return merged_.get(); }
  /// Whether it runs over other weights than those of the base model.
  bool replaces_base() const { return merged_ != nullptr || own() != nullptr; }
  /// Of what is packed, or of the weights that it was merged into.
  int64_t bytes() const;

 private:
  Adapter* adapter_;
  std::vector<LayerFactors> layers_;
  std::unique_ptr<MergedWeights> merged_;
};

}  // namespace peft
