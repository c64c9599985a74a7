#include "core/adapter_layers.h"

#include "core/dropout_site.h"

namespace peft {
namespace {

LayerFactors layer_factors(Adapter& adapter, const ModelShape& shape, int64_t layer) {
  const int64_t d = shape.hidden_size, f = shape.intermediate_size;
  const auto site = [&](DropoutSite s) { return dropout_site(layer, s); };
  std::vector<LoraSlice> qkv, attention_output, intermediate, output;
  for (LoraModule& m : adapter.modules()) {
    if (m.path.layer != layer) continue;
    switch (m.path.kind) {
      case LinearKind::kQuery:
        qkv.push_back({&m, 0, d, site(DropoutSite::kQuery)});
        break;
      case LinearKind::kKey:
        qkv.push_back({&m, d, d, site(DropoutSite::kKey)});
        break;
      case LinearKind::kValue:
        qkv.push_back({&m, 2 * d, d, site(DropoutSite::kValue)});
        break;
      case LinearKind::kAttentionOutput:
        attention_output.push_back({&m, 0, d, site(DropoutSite::kLoraAttentionOutput)});
        break;
      case LinearKind::kIntermediate:
        intermediate.push_back({&m, 0, f, site(DropoutSite::kLoraIntermediate)});
        break;
      case LinearKind::kOutput:
        output.push_back({&m, 0, d, site(DropoutSite::kLoraOutput)});
        break;
      case LinearKind::kPooler:
        break;
    }
  }
  return {PackedLora(qkv), PackedLora(attention_output), PackedLora(intermediate), PackedLora(output)};
}

}  // namespace

AdapterLayers::AdapterLayers(Adapter& adapter, const ModelShape& shape) : adapter_(&adapter) {
  for (int64_t i = 0; i < shape.num_layers; i++) layers_.push_back(layer_factors(adapter, shape, i));
}

AdapterLayers::AdapterLayers(Adapter& adapter, std::unique_ptr<MergedWeights> merged)
    : adapter_(&adapter), merged_(std::move(merged)) {
  const PackedLora nothing(std::vector<LoraSlice>{});
  for (int64_t i = 0; i < merged_->layers(); i++) layers_.push_back({nothing, nothing, nothing, nothing});
}

int64_t AdapterLayers::bytes() const {
  int64_t total = merged_ ? merged_->bytes() : 0;
  for (const LayerFactors& layer : layers_) {
    total += layer.qkv.bytes() + layer.attention_output.bytes() + layer.intermediate.bytes() +
             layer.output.bytes();
  }
  return total;
}

}  // namespace peft
