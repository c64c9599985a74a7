#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/encoder_layer.h"

namespace peft {

/// A BERT encoder with pooling: packed token ids in, one unnormalised vector a text out, and back.
class Encoder {
 public:
  /// With `recompute`, forward keeps only what goes into each layer, and backward runs the layer again: a
  /// third more work for a fraction of the memory (Chen et al., "Training deep nets with sublinear memory
  /// cost", 2016). The numbers are the same to the bit.
  Encoder(const ModelShape& shape, BertWeights weights, Pooling pooling, at::Device device,
          bool recompute = false);
  Encoder(const Encoder&) = delete;

  const ModelShape& shape() const { return shape_; }
  const BertWeights& weights() const { return weights_; }
  at::Device device() const { return device_; }

  /// The adapters of the next passes, in the order that a batch counts them: none for the base model, one for
  /// training. They must outlive the passes; whenever one has changed this must come again, and packs it.
  void use(const std::vector<AdapterLayers*>& adapters, LoraUse use, const DropoutPlan& dropout);
  bool adapted() const { return adapted_; }
  /// Where to add the gradients of the model's own parameters up.
  void train(const ModelTensors& gradients);

  /// Who sees what goes into the matrices in the next passes; nobody, where it is empty.
  void observe(InputObserver observer) { scratch_.observe = std::move(observer); }

  /// Pooled vectors [texts, d]. With `keep`, what backward needs is kept until the next call.
  Tensor forward(const MicroBatch& micro, bool keep);
  /// Adds the gradients of what trains for dpooled [texts, d]; the last forward must have kept.
  void backward(const MicroBatch& micro, const Tensor& dpooled);

  int64_t buffer_bytes() const;
  /// Bytes of all buffers for micro-batches of this many tokens.
  int64_t planned_activations(int64_t tokens, bool training) const;
  /// Bytes of what training packs beside the frozen weights for the input gradient.
  int64_t gradient_bytes() const;

 private:
  void find_lowest_trained();
  /// Runs with the adapter's own parameters, and with what it was merged into, in place of the base model's;
  /// null: with those.
  void take(const AdapterLayers* adapter);
  /// Through the embeddings' LayerNorm to the tables, for the gradient of the first layer's input.
  void backward_embeddings(const MicroBatch& micro, const Tensor& gradient);

  ModelShape shape_;
  BertWeights weights_;
  Pooling pooling_;
  at::Device device_;
  bool recompute_;
  std::vector<EncoderLayer> layers_;
  bool adapted_ = false;
  // What the next passes run with: the base model's tables, or an adapter's own.
  Tensor word_, position_, token_type_;
  LayerNormWeights embedding_norm_;
  EmbeddingTensors embedding_gradients_;
  bool replaced_ = false;
  int64_t lowest_trained_ = 0;  // number of layers where none is

  DropoutPlan dropout_;
  std::vector<LayerBuffers> buffers_;
  std::vector<LayerActivations> kept_;
  std::vector<Buffer> outputs_;  // of each layer that is kept
  Buffer between_[2];
  LayerScratch scratch_;
  Buffer gradient_, recomputed_;
};

}  // namespace peft
