#pragma once

#include <string>
#include <vector>

#include "core/model_tensors.h"
#include "core/trained_parameters.h"
#include "weights/bert_tensors.h"
#include "weights/bert_weights.h"

namespace peft {

/// All parameters of a BertModel but its pooler's, which mean and CLS pooling never reach: they train, and
/// matrices are packed again whenever they have changed. Matrices and embeddings decay, biases and LayerNorms
/// do not, as with transformers' Trainer.
class ModelParameters : public TrainedParameters {
 public:
  /// Reads a model.safetensors of plain numbers. `products` is what both operands of a product are rounded
  /// to. Throws as load_bert_weights, and ALREADY_QUANTIZED.
  ModelParameters(const std::string& path, const ModelShape& shape, WeightFormat products, at::Device device);
  ModelParameters(const ModelParameters&) = delete;

  /// Views of the parameters, which must outlive them.
  BertWeights weights() const;
  ModelTensors gradients() const { return tensors(gradient()); }
  /// Bytes of what the file holds beside them, which stays as it was.
  int64_t untouched_bytes() const;

  /// Reads what save() wrote. Throws MODEL_CORRUPT for the file of another model; nothing has changed then.
  void load(const std::string& path);
  /// Writes every tensor that the model's file had, under its name there: floating-point numbers in fp32.
  void save(const std::string& path) const;
  std::map<std::string, Tensor> named_weights() const { return named_like_trained(trained()); }

 private:
  struct Part {
    std::string key;  // without the file's prefix
    std::vector<int64_t> shape;
    int64_t offset = 0;
  };

  /// In the order in which they lie in the buffer: what decays, then the rest. What runs as one matrix lies
  /// together.
  void lay_out(const SafetensorsFile& file);
  void read(const SafetensorsFile& file);
  /// The part of this name in a buffer laid out as the parameters are, with so many that follow it as one.
  Tensor part(const Tensor& flat, const std::string& key, int64_t count = 1) const;
  ModelTensors tensors(const Tensor& flat) const;

  ModelShape shape_;
  WeightFormat products_;
  std::string prefix_;
  std::vector<Part> parts_;
  std::map<std::string, Part> by_key_;
  NormKeys norm_;  // last parts of the names of a LayerNorm's tensors
  std::map<std::string, Tensor> untouched_;
  bool has_pooler_ = false;
};

}  // namespace peft
