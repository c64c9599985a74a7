#include "core/adam.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

namespace peft {

Adam::Adam(const Tensor& parameters)
    : first_moment_(at::zeros_like(parameters)), second_moment_(at::zeros_like(parameters)) {}

void Adam::step(Tensor parameters, const Tensor& gradient, const AdamOptions& o) {
  steps_++;
  if (o.weight_decay != 0) parameters.mul_(1 - o.learning_rate * o.weight_decay);
  first_moment_.lerp_(gradient, 1 - o.beta1);
  second_moment_.mul_(o.beta2).addcmul_(gradient, gradient, 1 - o.beta2);
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(steps_));
  const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(steps_));
  const Tensor denominator = (second_moment_.sqrt() / std::sqrt(correction2)).add_(o.epsilon);
  parameters.addcdiv_(first_moment_, denominator, -o.learning_rate / correction1);
}

}  // namespace peft
