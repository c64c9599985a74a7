#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/frozen_linear.h"
#include "core/model_shape.h"
#include "kernels/kernels.h"

namespace peft {

/// One encoder layer. Query, key and value are one matrix, so that they run as one product.
struct LayerWeights {
  std::unique_ptr<FrozenLinear> qkv, attention_output, intermediate, output;
  Tensor qkv_bias, attention_output_bias, intermediate_bias, output_bias;
  LayerNormWeights attention_norm, output_norm;
};

/// The frozen weights of a BertModel.
struct BertWeights {
  Tensor word, position, token_type;  // [vocab, d], [positions, d], [d] (type 0)
  LayerNormWeights embedding_norm;
  std::vector<LayerWeights> layers;
  bool has_pooler = false;
  /// As Python counts them: everything in BertModel, pooler included where the file has one.
  int64_t parameters = 0;
  int64_t bytes = 0;
};

/// Reads a model.safetensors with BertModel's keys, bare or below `bert.` or `model.`. Throws MODEL_CORRUPT
/// naming the key that is missing or whose shape disagrees with config.json, NOT_FINITE for NaN or infinity.
BertWeights load_bert_weights(const std::string& path, const ModelShape& shape, at::Device device);

}  // namespace peft
