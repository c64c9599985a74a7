#pragma once

#include <functional>

#include "core/adapter_layers.h"
#include "core/buffer.h"
#include "core/dropout_site.h"
#include "core/lora_linear.h"
#include "core/model_tensors.h"
#include "core/own_parameters.h"
#include "core/packed_batch.h"
#include "core/weight_gradient.h"
#include "weights/bert_weights.h"

namespace peft {

/// The dropout of one pass: rates are zero outside training.
struct DropoutPlan {
  float hidden_rate = 0;
  float attention_rate = 0;
  float adapter_rate = 0;
  uint64_t seed = 0;
  uint32_t step = 0;

  Dropout hidden(uint32_t site, uint32_t first_token) const {
    return {hidden_rate, seed, step, site, first_token};
  }
  Dropout attention(uint32_t site, uint32_t first_token) const {
    return {attention_rate, seed, step, site, first_token};
  }
  Dropout adapter() const { return {adapter_rate, seed, step, 0, 0}; }
};

/// What the forward pass of one layer keeps for its backward pass: ten rows of hidden size a token.
struct LayerActivations {
  Tensor input;          // [T, d]
  Tensor qkv;            // [T, 3d]
  Tensor context;        // [T, d], where the matrix that reads it trains or has an adapter
  Tensor lse;            // [T, heads]
  Tensor attention_sum;  // [T, d], before its LayerNorm
  RowMoments attention_moments;
  Tensor intermediate;  // [T, f], before GELU
  Tensor output_sum;    // [T, d], before its LayerNorm
  RowMoments output_moments;
};

/// The memory behind LayerActivations.
class LayerBuffers {
 public:
  LayerActivations take(int64_t tokens, const ModelShape& shape, bool context, at::Device device);
  int64_t bytes() const;

 private:
  Buffer qkv_, context_, lse_, attention_sum_, attention_moments_, intermediate_, output_sum_,
      output_moments_;
};

/// The matrices of a layer, by what goes into them.
enum class LayerMatrix { kQkv, kAttentionOutput, kIntermediate, kOutput };

/// Sees what goes into a matrix of a layer, [T, in]; the tensor holds it during the call only.
using InputObserver = std::function<void(int64_t layer, LayerMatrix matrix, const Tensor& x)>;

/// Buffers that live within one layer's pass only; shared by all layers.
struct LayerScratch {
  Buffer context, attention_normed, gelu, gradient_sum, gradient_masked, gradient_intermediate,
      gradient_context, gradient_qkv;
  WeightGradient weight_gradient;
  LoraScratch lora;
  InputObserver observe;  // may be empty
};

/// One post-norm BERT layer with LoRA on any of its matrices: an explicit forward and backward.
class EncoderLayer {
 public:
  EncoderLayer(const ModelShape& shape, const LayerWeights& weights, int64_t index);

  /// Where to add the gradients of the layer's own parameters up.
  void train(const LayerTensors& gradients) { gradients_ = gradients; }
  /// Runs with an adapter's own parameters, and its gradients, and with what it was merged into, in place of
  /// the base model's; null: with those.
  void take(const OwnLayer* own, const MergedLayer* merged);
  /// Whether anything of it gets a gradient.
  bool trains() const { return lowest_trained() != Part::kNone; }
  bool keeps_context() const {
    return attention_output_.adapted() || gradients_.attention_output.weight.defined();
  }
  int64_t gradient_bytes() const;
  /// The adapters of the next passes, this layer's part of them, in the order that the rows of a batch count
  /// them.
  void use(const std::vector<AdapterLayers*>& adapters, LoraUse use, const Dropout& adapter_dropout,
           LayerScratch& scratch);
  /// What a pass of so many tokens takes for the adapters.
  LoraFloats planned_lora(int64_t tokens, bool training) const;

  /// out [T, d]; `kept.input` must be set.
  void forward(const MicroBatch& micro, const DropoutPlan& dropout, LayerActivations& kept,
               LayerScratch& scratch, Tensor& out);
  /// Adds the gradients of what trains; turns the gradient of the layer's output into that of its input, in
  /// place, unless `lowest`: then nothing below this layer is trained, and it stops after the lowest trained
  /// matrix.
  void backward(const MicroBatch& micro, const DropoutPlan& dropout, const LayerActivations& kept,
                LayerScratch& scratch, bool lowest, Tensor& gradient);

 private:
  /// What has parameters of its own, from the input up.
  enum class Part { kQkv, kAttentionOutput, kAttentionNorm, kIntermediate, kOutput, kOutputNorm, kNone };

  Part lowest_trained() const;
  /// Whether attention takes the GPU's products in 16 bits, as those of the weights are.
  bool in_16_bits(const Dropout& dropout, at::Device device) const;
  uint32_t site(DropoutSite s) const { return dropout_site(index_, s); }

  const ModelShape& shape_;
  const LayerWeights& base_;
  // What the next passes run with.
  Tensor attention_output_bias_, intermediate_bias_, output_bias_;
  LayerNormWeights attention_norm_, output_norm_;
  bool replaced_ = false;
  int64_t index_;
  LoraLinear qkv_, attention_output_, intermediate_, output_;
  LayerTensors gradients_;
};

}  // namespace peft
