#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "weights/frozen_linear.h"
#include "weights/model_shape.h"
#include "weights/weight_storage.h"

namespace peft {

/// One encoder layer. Query, key and value are one matrix, so that they run as one product.
struct LayerWeights {
  std::unique_ptr<FrozenLinear> qkv, attention_output, intermediate, output;
  Tensor qkv_bias, attention_output_bias, intermediate_bias, output_bias;
  LayerNormWeights attention_norm, output_norm;
  at::ScalarType products = at::kFloat;  // what operands of products are rounded to
};

/// The frozen weights of a BertModel.
struct BertWeights {
  Tensor word;  // [vocab, d], fp16 (bfloat16 beside bfloat16) unless the linear layers are fp32
  Tensor position, token_type;  // [positions, d], [d] (type 0)
  LayerNormWeights embedding_norm;
  std::vector<LayerWeights> layers;
  /// As the linear layers are held; of a quantised file, as it has them.
  WeightStorage storage;
  bool has_pooler = false;
  /// As Python counts them: everything in BertModel, pooler included where the file has one.
  int64_t parameters = 0;

  int64_t linear_bytes() const;
  int64_t embedding_bytes() const;
  /// Biases and LayerNorms.
  int64_t other_bytes = 0;
  int64_t bytes() const { return linear_bytes() + embedding_bytes() + other_bytes; }
};

/// Reads a model.safetensors with BertModel's keys, bare or below `bert.` or `model.`, one tensor at a time,
/// and brings its linear layers into `storage`; without one they stay as the file has them. Throws
/// MODEL_CORRUPT naming the key that is missing or whose shape disagrees with config.json, NOT_FINITE for NaN
/// or infinity, QUANT_STATE, and ALREADY_QUANTIZED where the file is quantised in another format.
BertWeights load_bert_weights(const std::string& path, const ModelShape& shape,
                              const std::optional<WeightStorage>& storage, at::Device device);

}  // namespace peft
