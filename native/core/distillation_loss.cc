#include "core/distillation_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>

namespace peft {

LossValue DistillationLoss::operator()(const Tensor& vectors, at::ArrayRef<float> targets,
                                       int64_t batch_examples) const {
  const int64_t n = vectors.size(0), width = vectors.size(2);
  // Targets are as wide as whole vectors, also where these are cut.
  const Tensor wide =
      at::from_blob(const_cast<float*>(targets.data()), {n, static_cast<int64_t>(targets.size()) / n},
                    at::TensorOptions().dtype(at::kFloat));
  const Tensor target = wide.narrow(1, 0, width).to(vectors.device()).unsqueeze(1);
  const Tensor error = vectors - target;
  const double entries = static_cast<double>(batch_examples * width);
  return {(error * error).sum(at::kDouble).item<double>() / entries, error * (2 / entries)};
}

}  // namespace peft
