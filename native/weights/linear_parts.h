#pragma once

#include <memory>
#include <string>
#include <vector>

#include "weights/frozen_linear.h"

namespace peft {

/// What weights without codes are held in beside this format: fp16 beside codes.
at::ScalarType plain_type(WeightFormat format);

/// Throws NOT_FINITE, naming `name`, for what fp16 does not reach.
Tensor rounded_weight(const Tensor& value, at::ScalarType type, const std::string& name);

/// A frozen matrix on its way from its modules, each [out, in], to one below the other in one storage.
class LinearParts {
 public:
  LinearParts(const WeightStorage& storage, at::Device device) : storage_(storage), device_(device) {}

  /// A module in fp32 on the CPU, to be brought into the storage. Throws NOT_FINITE, naming `name`.
  void add(const Tensor& weight, const std::string& name);
  /// Modules that are in it already.
  void add(BlockwiseWeight weight) { blockwise_.push_back(std::move(weight)); }
  void add(RowInt8Weight weight) { rows_.push_back(std::move(weight)); }
  /// The matrix of all that were added.
  std::unique_ptr<FrozenLinear> join() const;

 private:
  const WeightStorage& storage_;
  at::Device device_;
  std::vector<BlockwiseWeight> blockwise_;
  std::vector<RowInt8Weight> rows_;
  std::vector<Tensor> plain_;
};

}  // namespace peft
