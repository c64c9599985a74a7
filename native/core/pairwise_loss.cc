#include "core/pairwise_loss.h"

#include <ATen/ops/zeros_like.h>

namespace peft {

PairwiseLoss::PairwiseLoss(Comparison comparison, ScoreLoss loss, bool separable)
    : comparison_(comparison), loss_(std::move(loss)), separable_(separable) {}

LossValue PairwiseLoss::operator()(const Tensor& vectors, const Tensor& labels,
                                   int64_t batch_examples) const {
  const Tensor a = vectors.select(1, 0), b = vectors.select(1, 1);
  const ScoreValue scored =
      loss_(comparison_(a, b).to(at::kDouble), labels.to(at::kDouble), static_cast<double>(batch_examples));
  LossValue result{scored.value, at::zeros_like(vectors)};
  comparison_.backward(a, b, scored.slopes.to(vectors.scalar_type()), result.gradient.select(1, 0),
                       result.gradient.select(1, 1));
  return result;
}

}  // namespace peft
