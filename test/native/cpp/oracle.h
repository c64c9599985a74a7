#pragma once

#include <map>
#include <string>

#include "core/session.h"

// A BERT encoder written once more in plain autograd operations, text by text: the second oracle of the
// gradients.

namespace peft::test {

using Weights = std::map<std::string, at::Tensor>;

ModelShape tiny_shape();
/// Random weights of every tensor of a BertModel with this shape, pooler included.
Weights random_bert(const ModelShape& shape);
/// Random A and B for every module of the spec, keyed as an adapter file.
Weights random_adapter(const AdapterSpec& spec, const ModelShape& shape);
/// LoRA on these linear layers (suffixes of module names) of every layer.
AdapterSpec spec_for(const ModelShape& shape, const std::vector<std::string>& suffixes, int64_t rank,
                     double scale, double dropout);

struct OracleResult {
  at::Tensor embeddings;  // [texts, d], normalised
  double loss = 0;
  Weights gradients;  // keyed as the adapter file, and as the model's where that trains
};

/// With training, dropout draws the masks that the engine documents. With `train_model` the model's own
/// parameters get gradients too.
OracleResult run_oracle(const ModelShape& shape, const Weights& bert, const AdapterSpec& spec,
                        const Weights& adapter, Pooling pooling, const ExampleBatch& batch, bool training,
                        const PassOptions& pass, bool train_model = false);

ExampleBatch some_pairs(const ModelShape& shape, const std::vector<int32_t>& lengths);

/// A file in the temporary folder that is gone when this is.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name);
  ~TemporaryFile();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace peft::test
