#pragma once

#include "core/comparison.h"

namespace peft {

/// Mean of max(d(anchor, positive) - d(anchor, negative) + margin, 0). Schroff et al., "FaceNet", 2015.
class TripletLoss : public Loss {
 public:
  TripletLoss(Comparison distance, double margin) : distance_(distance), margin_(margin) {}

  LossValue operator()(const Tensor& vectors, const Tensor& labels, int64_t batch_examples) const override;
  bool separable() const override { return true; }
  int64_t labels_per_example(int64_t) const override { return 0; }
  bool takes(int64_t texts_per_example) const override { return texts_per_example == 3; }

 private:
  Comparison distance_;
  double margin_;
};

}  // namespace peft
