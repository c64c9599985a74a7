#include "core/trained_parameters.h"

#include <ATen/ops/zeros_like.h>

namespace peft {

void TrainedParameters::hold(const Tensor& trained, int64_t decayed) {
  trained_ = trained;
  decayed_ = decayed;
}

void TrainedParameters::require_gradient() {
  if (!gradient_.defined()) gradient_ = at::zeros_like(trained_);
}

std::map<std::string, Tensor> TrainedParameters::named_like_trained(const Tensor& flat) const {
  std::map<std::string, Tensor> views;
  for (const auto& [key, view] : parts_) views[key] = like(flat, view);
  return views;
}

Tensor TrainedParameters::like(const Tensor& flat, const Tensor& view) const {
  const int64_t offset = view.storage_offset() - trained_.storage_offset();
  return flat.narrow(0, offset, view.numel()).view(view.sizes());
}

}  // namespace peft
