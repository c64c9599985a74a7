#pragma once

#include <memory>
#include <vector>

#include "weights/bert_weights.h"

namespace peft {

class OwnParameters;
struct LayerFactors;

/// A frozen matrix and its bias with an adapter in them; what is null or undefined it leaves alone.
struct MergedLinear {
  std::unique_ptr<FrozenLinear> weight;
  Tensor bias;
};

/// Laid out as LayerWeights is.
struct MergedLayer {
  MergedLinear qkv, attention_output, intermediate, output;
};

/// Second copies of the frozen matrices that an adapter changes, with it in them: W + scale * B A, with DoRA
/// magnitude * (W + scale * B A) / |W + scale * B A| row by row, and b + scale * B's bias. Summed in double
/// precision and rounded once. The base model's own stay what they are.
class MergedWeights {
 public:
  /// `factors` and `own` (null: none) are the adapter's; `storage` is how the copies are held. Throws
  /// NOT_FINITE for what would hold NaN or infinity.
  MergedWeights(const std::vector<LayerFactors>& factors, const OwnParameters* own, const BertWeights& base,
                const WeightStorage& storage, at::Device device);
  MergedWeights(const MergedWeights&) = delete;

  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  const MergedLayer& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  /// LoRA modules that are in them.
  int64_t modules() const { return modules_; }
  int64_t bytes() const;

 private:
  std::vector<MergedLayer> layers_;
  int64_t modules_ = 0;
};

}  // namespace peft
