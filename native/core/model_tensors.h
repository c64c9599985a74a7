#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace peft {

using at::Tensor;

// The parameters of a BertModel that train, or their gradients. What is undefined does not train.

struct NormTensors {
  Tensor gamma, beta;  // [d]
  bool any() const { return gamma.defined() || beta.defined(); }
};

struct LinearTensors {
  Tensor weight, bias;  // [out, in], [out]
  bool any() const { return weight.defined() || bias.defined(); }
};

/// Laid out as LayerWeights is: query, key and value are one matrix.
struct LayerTensors {
  LinearTensors qkv, attention_output, intermediate, output;
  NormTensors attention_norm, output_norm;
};

struct EmbeddingTensors {
  Tensor word, position, token_type;  // [vocab, d], [positions, d], [types, d]
  NormTensors norm;
  bool any() const { return word.defined() || position.defined() || token_type.defined() || norm.any(); }
};

struct ModelTensors {
  EmbeddingTensors embeddings;
  std::vector<LayerTensors> layers;
};

}  // namespace peft
