#include "core/triplet_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

namespace peft {

LossValue TripletLoss::operator()(const Tensor& vectors, const Tensor&, int64_t batch_examples) const {
  const Tensor anchor = vectors.select(1, 0), positive = vectors.select(1, 1),
               negative = vectors.select(1, 2);
  const Tensor violations = distance_(anchor, positive) - distance_(anchor, negative) + margin_;
  const auto batch = static_cast<double>(batch_examples);
  const Tensor slope = (violations > 0).to(vectors.scalar_type()) / batch;
  LossValue result{violations.clamp_min(0).sum(at::kDouble) / batch, at::zeros_like(vectors)};
  const Tensor danchor = result.gradient.select(1, 0);
  distance_.backward(anchor, positive, slope, danchor, result.gradient.select(1, 1));
  distance_.backward(anchor, negative, slope.neg(), danchor, result.gradient.select(1, 2));
  return result;
}

}  // namespace peft
