#pragma once

#include "core/comparison.h"
#include "core/score_loss.h"

namespace peft {

/// A loss of pairs that sees nothing of them but how their two texts compare.
class PairwiseLoss : public Loss {
 public:
  PairwiseLoss(Comparison comparison, ScoreLoss loss, bool separable);

  LossValue operator()(const Tensor& vectors, const Tensor& labels, int64_t batch_examples) const override;
  bool separable() const override { return separable_; }
  int64_t labels_per_example(int64_t) const override { return 1; }
  bool takes(int64_t texts_per_example) const override { return texts_per_example == 2; }

 private:
  Comparison comparison_;
  ScoreLoss loss_;
  bool separable_;
};

}  // namespace peft
