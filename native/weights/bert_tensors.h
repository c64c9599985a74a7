#pragma once

#include <string>
#include <vector>

#include "weights/model_shape.h"
#include "weights/safetensors.h"

namespace peft {

/// A linear layer of a BertModel: `<name>.weight` [out, in] and `<name>.bias` [out]. Names are without
/// prefix.
struct LinearModule {
  std::string name;
  int64_t out, in;
};

/// Those of one layer of the encoder.
std::vector<LinearModule> layer_linears(const ModelShape& shape, int64_t layer);

/// "", "bert." or "model.": what stands before BertModel's keys in the file. Throws MODEL_CORRUPT.
std::string bert_prefix(const SafetensorsFile& file);

/// Throws MODEL_CORRUPT where the file lacks `key` or has it in another shape than config.json asks for.
void require_tensor(const SafetensorsFile& file, const std::string& key, at::IntArrayRef expected);

/// Of a LayerNorm: `.weight` and `.bias`, or `.gamma` and `.beta` in checkpoints that were converted from
/// TensorFlow before 2019.
struct NormKeys {
  std::string weight, bias;
};
NormKeys norm_keys(const SafetensorsFile& file, const std::string& norm);

/// Everything that loading a BertModel of plain numbers reads is in the file, in its shape. Throws
/// MODEL_CORRUPT.
void require_bert_tensors(const SafetensorsFile& file, const std::string& prefix, const ModelShape& shape);

/// A tensor of an encoder layer beyond those that config.json counts, which nothing reads.
bool is_surplus(const std::string& key, const std::string& prefix, const ModelShape& shape);

}  // namespace peft
