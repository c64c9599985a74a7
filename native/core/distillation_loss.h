#pragma once

#include "core/loss.h"

namespace peft {

/// Mean of (e - t)^2 over all entries of the vectors and of the targets that come with them.
class DistillationLoss : public Loss {
 public:
  LossValue operator()(const Tensor& vectors, const Tensor& targets, int64_t batch_examples) const override;
  bool separable() const override { return true; }
  int64_t labels_per_example(int64_t dimension) const override { return dimension; }
  bool takes(int64_t texts_per_example) const override { return texts_per_example == 1; }
};

}  // namespace peft
