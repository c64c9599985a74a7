#include "core/distillation_loss.h"

#include <ATen/TensorOperators.h>

namespace peft {

LossValue DistillationLoss::operator()(const Tensor& vectors, const Tensor& targets,
                                       int64_t batch_examples) const {
  const int64_t n = vectors.size(0), width = vectors.size(2);
  // Targets are as wide as whole vectors, also where these are cut.
  const Tensor target = targets.view({n, -1}).narrow(1, 0, width).unsqueeze(1);
  const Tensor error = vectors - target;
  const double entries = static_cast<double>(batch_examples * width);
  return {(error * error).sum(at::kDouble) / entries, error * (2 / entries)};
}

}  // namespace peft
