#include "core/adam.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace peft {
namespace {

/// Entries that go through all operations together: what lies between two of them stays in cache, and is
/// never as large as the model. A GPU takes more at a time, for every operation is a launch.
int64_t chunk_of(const Tensor& flat) { return flat.device().is_cpu() ? 1 << 18 : 1 << 24; }

}  // namespace

Adam::Adam(const TrainedParameters& parameters)
    : first_moment_(at::zeros_like(parameters.trained())),
      second_moment_(at::zeros_like(parameters.trained())) {}

void Adam::step(TrainedParameters& parameters, const AdamOptions& o) {
  steps_++;
  const Tensor& trained = parameters.trained();
  if (o.weight_decay != 0) {
    trained.narrow(0, 0, parameters.decayed()).mul_(1 - o.learning_rate * o.weight_decay);
  }
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(steps_));
  const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(steps_));
  for (int64_t begin = 0; begin < trained.numel(); begin += chunk_of(trained)) {
    const int64_t size = std::min(chunk_of(trained), trained.numel() - begin);
    const Tensor gradient = parameters.gradient().narrow(0, begin, size);
    const Tensor first = first_moment_.narrow(0, begin, size), second = second_moment_.narrow(0, begin, size);
    first.lerp_(gradient, 1 - o.beta1);
    second.mul_(o.beta2).addcmul_(gradient, gradient, 1 - o.beta2);
    const Tensor denominator = (second.sqrt() / std::sqrt(correction2)).add_(o.epsilon);
    trained.narrow(0, begin, size).addcdiv_(first, denominator, -o.learning_rate / correction1);
  }
  parameters.changed();
}

}  // namespace peft
