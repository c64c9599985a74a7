#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/model_tensors.h"
#include "weights/frozen_linear.h"
#include "weights/model_shape.h"

namespace peft {

/// A parameter of BertModel of which an adapter has a copy of its own: PEFT's modules_to_save and bias.
struct OwnParameterSpec {
  std::string name;  // `encoder.layer.0.output.LayerNorm.bias`
  std::string key;   // in the adapter's file
};

/// An adapter's own parameters in one layer; what is undefined or null is the base model's.
struct OwnLayer {
  LayerTensors values, gradients;
  std::unique_ptr<FrozenLinear> qkv, attention_output, intermediate, output;

  bool any() const;
};

/// Where an adapter's own parameters lie in its flat buffer, and what the encoder takes them for.
///
/// Query, key and value are one matrix and one bias: where an adapter has one of their biases, it holds all
/// three, of which the others stand still.
class OwnParameters {
 public:
  /// Throws ADAPTER_UNSUPPORTED for a name that is none of this model, or a part of a matrix that runs as
  /// one.
  OwnParameters(const std::vector<OwnParameterSpec>& specs, const ModelShape& shape, bool has_pooler);
  OwnParameters(const OwnParameters&) = delete;

  bool empty() const { return parts_.empty(); }
  /// Numbers that decay, that train without, and of the pooler's copy, which does not train.
  int64_t decaying() const { return size(Kind::kDecays); }
  int64_t other() const { return size(Kind::kTrains); }
  int64_t still() const { return size(Kind::kStill); }

  /// Takes three flat buffers of these sizes for its own.
  void bind(const Tensor& decaying, const Tensor& other, const Tensor& still);
  /// The named parts, by their key in the file, without those of the pooler or with them.
  std::map<std::string, Tensor> named(bool trained_alone) const;
  /// Takes the base model's numbers, from its file; with `lenient` what is quantised there is passed over.
  void copy_base(const std::string& path, bool lenient);

  /// What the encoder takes; `version` counts changes, `products` as make_trained_linear has it.
  void build(const uint64_t& version, WeightFormat products);
  /// `gradient_of` gives the gradient of a view.
  template <typename GradientOf>
  void connect(GradientOf gradient_of) {
    for (Block& block : blocks_) {
      if (block.kind != Kind::kStill) block.gradient = gradient_of(block.value);
    }
    fill();
  }
  /// Nothing of what stands still moves.
  void clear_still_gradients() const;

  const OwnLayer* layer(int64_t index) const {
    return empty() ? nullptr : &layers_[static_cast<size_t>(index)];
  }
  const EmbeddingTensors& embeddings() const { return embeddings_; }
  const EmbeddingTensors& embedding_gradients() const { return embedding_gradients_; }
  /// Numbers of the named parts.
  int64_t count() const;

 private:
  enum class Kind { kDecays, kTrains, kStill };

  /// What runs as one tensor.
  struct Block {
    std::string name;
    std::vector<int64_t> shape;
    Kind kind;
    Tensor value, gradient;
    std::vector<bool> named_rows;  // thirds of a bias of query, key and value
  };
  /// A parameter as the file has it: rows of a block.
  struct Part {
    std::string name, key;
    size_t block;
    int64_t row, rows;
  };

  int64_t size(Kind kind) const;
  Tensor rows(const Part& part) const { return blocks_[part.block].value.narrow(0, part.row, part.rows); }
  const Block* find(const std::string& name) const;
  /// Gives the layers their views of the blocks.
  void fill();

  ModelShape shape_;
  std::vector<Block> blocks_;
  std::vector<Part> parts_;
  std::vector<OwnLayer> layers_;
  EmbeddingTensors embeddings_, embedding_gradients_;
};

}  // namespace peft
