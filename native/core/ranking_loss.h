#pragma once

#include "core/loss.h"

namespace peft {

/// Every anchor finds its positive among the positives and the negatives of the whole batch: the mean of
/// -log softmax(scale * cosines)[own positive]. Henderson et al., "Efficient Natural Language Response
/// Suggestion for Smart Reply", 2017.
class RankingLoss : public Loss {
 public:
  explicit RankingLoss(double scale) : scale_(scale) {}

  LossValue operator()(const Tensor& vectors, const Tensor& labels, int64_t batch_examples) const override;
  bool separable() const override { return false; }
  int64_t labels_per_example(int64_t) const override { return 0; }
  bool takes(int64_t texts_per_example) const override { return texts_per_example >= 2; }

 private:
  double scale_;
};

}  // namespace peft
