#pragma once

#include <vector>

#include "core/adapter.h"
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

  LayerFactors& layer(int64_t index) { return layers_[static_cast<size_t>(index)]; }
  /// Which of the adapter's changes its weights are.
  uint64_t version() const { return adapter_->version(); }
  /// Its own parameters, where it has any.
  const OwnParameters* own() const { return adapter_->own().empty() ? nullptr : &adapter_->own(); }
  /// Of what is packed.
  int64_t bytes() const;

 private:
  Adapter* adapter_;
  std::vector<LayerFactors> layers_;
};

}  // namespace peft
