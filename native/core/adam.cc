#include "core/adam.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
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

void Adam::step(TrainedParameters& parameters, const AdamOptions& o, const Tensor& sound) {
  steps_++;
  const Tensor& trained = parameters.trained();
  if (o.weight_decay != 0) {
    const Tensor decayed = trained.narrow(0, 0, parameters.decayed());
    const double factor = 1 - o.learning_rate * o.weight_decay;
    sound.defined() ? decayed.mul_(at::where(sound, factor, 1.0)) : decayed.mul_(factor);
  }
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(steps_));
  const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(steps_));
  for (int64_t begin = 0; begin < trained.numel(); begin += chunk_of(trained)) {
    const int64_t size = std::min(chunk_of(trained), trained.numel() - begin);
    const auto chunk = [&](const Tensor& flat) { return flat.narrow(0, begin, size); };
    const Tensor gradient = chunk(parameters.gradient()), weights = chunk(trained),
                 first = chunk(first_moment_), second = chunk(second_moment_);
    const std::array<Tensor, 3> changed = {weights, first, second};
    std::array<Tensor, 3> before;
    if (sound.defined())
      std::ranges::transform(changed, before.begin(), [](const Tensor& t) { return t.clone(); });
    first.lerp_(gradient, 1 - o.beta1);
    second.mul_(o.beta2).addcmul_(gradient, gradient, 1 - o.beta2);
    const Tensor denominator = (second.sqrt() / std::sqrt(correction2)).add_(o.epsilon);
    weights.addcdiv_(first, denominator, -o.learning_rate / correction1);
    if (!sound.defined()) continue;
    for (size_t i = 0; i < changed.size(); i++) changed[i].copy_(at::where(sound, changed[i], before[i]));
  }
  parameters.changed();
}

}  // namespace peft
