#include "core/training_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "error.h"

namespace peft {
namespace {

/// Of no dimension, on the device. In parts, for ATen sums floats in double by way of a copy.
Tensor norm_of(const Tensor& gradient) {
  constexpr int64_t kPart = 1 << 22;
  Tensor squares = at::zeros({}, gradient.options().dtype(at::kDouble));
  for (const Tensor& part : gradient.split(kPart)) {
    const Tensor norm = part.norm(2, at::kDouble);
    squares.add_(norm * norm);
  }
  return squares.sqrt();
}

/// As torch.nn.utils.clip_grad_norm_, with its 1e-6, and without a look at the norm.
void clip(Tensor gradient, const Tensor& norm, double max_norm) {
  const Tensor smaller = at::full_like(norm, max_norm).div_(norm + 1e-6);
  gradient.mul_(at::where(norm > max_norm, smaller, 1).to(gradient.scalar_type()));
}

std::string first_not_finite(const TrainedParameters& parameters) {
  for (const auto& [key, gradient] : parameters.named_gradients()) {
    if (!gradient.isfinite().all().item<bool>()) return key;
  }
  return "unknown";
}

BatchLoss accumulate(Encoder& encoder, const Trained& what, const ExampleBatch& batch,
                     const PassOptions& options, double scale) {
  return BatchGradient(encoder, what.parameters, what.lora)(batch, options, scale);
}

}  // namespace

StepResult take_step(Encoder& encoder, const Trained& what, const ExampleBatch& batch,
                     const StepOptions& options) {
  what.deferred.require_none();
  const bool scaled = options.loss_scale > 0;
  const BatchLoss loss = accumulate(encoder, what, batch, options.pass, scaled ? options.loss_scale : 1);
  Tensor gradient = what.parameters.gradient();
  if (scaled) gradient.div_(options.loss_scale);
  const Tensor norm = norm_of(gradient);
  // The one place of a step that waits for a GPU.
  const Tensor read = at::stack({loss.value, norm}).to(at::kCPU);
  StepResult result{read[0].item<double>(), read[1].item<double>()};
  if (!std::isfinite(result.loss)) report_not_finite(at::cat(loss.vectors), batch.texts_per_example);
  if (scaled && !std::isfinite(result.grad_norm)) {
    result.not_finite = first_not_finite(what.parameters);
    return result;
  }
  if (!std::isfinite(result.grad_norm)) {
    throw EngineError("NOT_FINITE", "The gradient of " + first_not_finite(what.parameters) + " is not finite",
                      "Lower --learning_rate, or set --max_grad_norm 1.");
  }
  if (options.max_grad_norm > 0) clip(gradient, norm, options.max_grad_norm);
  what.adam.step(what.parameters, options.adam);
  return result;
}

void queue_step(Encoder& encoder, const Trained& what, const ExampleBatch& batch,
                const StepOptions& options) {
  if (options.loss_scale > 0)
    throw EngineError("USAGE", "A step with a loss scale cannot be queued: the next scale depends on it");
  const BatchLoss loss = accumulate(encoder, what, batch, options.pass, 1);
  const Tensor norm = norm_of(what.parameters.gradient());
  const Tensor& sound = what.deferred.add(at::stack({loss.value, norm}));
  if (options.max_grad_norm > 0) clip(what.parameters.gradient(), norm, options.max_grad_norm);
  what.adam.step(what.parameters, options.adam, sound);
}

std::vector<StepResult> step_results(const Trained& what) {
  const int64_t queued = what.deferred.count();
  const std::vector<StepResult> results = what.deferred.read();
  const auto taken = std::ranges::count_if(results, &StepResult::finite);
  what.adam.set_steps(what.adam.steps() - (queued - taken));
  return results;
}

double take_gradient(Encoder& encoder, const Trained& what, const ExampleBatch& batch,
                     const PassOptions& options) {
  const BatchLoss loss = accumulate(encoder, what, batch, options, 1);
  const double value = loss.value.item<double>();
  if (!std::isfinite(value)) report_not_finite(at::cat(loss.vectors), batch.texts_per_example);
  return value;
}

}  // namespace peft
