#pragma once

#include <string>

#include "core/adapter.h"
#include "weights/bert_weights.h"

namespace peft {

/// The frozen matrices that adapters sit on, one module at a time, for adapters that begin with them or
/// measure them. What it is made of must outlive it.
class BaseMatrices {
 public:
  BaseMatrices(const BertWeights& held, const ModelShape& shape, std::string file)
      : held_(held), shape_(shape), file_(std::move(file)) {}

  /// As products see it, in whatever format it is held: fp32 [out, in] on the CPU.
  Tensor held(const LoraModule& module) const;
  /// As the file has it, before it was quantised for this session. Throws USAGE where the file is quantised.
  Tensor original(const LoraModule& module) const;
  /// The model.safetensors that they come from.
  const std::string& file() const { return file_; }

 private:
  /// The pooler is no part of what is held.
  Tensor from_file(const LoraModule& module, bool quantised_too) const;

  const BertWeights& held_;
  const ModelShape& shape_;
  std::string file_;
};

}  // namespace peft
