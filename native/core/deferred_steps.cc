#include "core/deferred_steps.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/stack.h>

#include <cmath>

#include "error.h"

namespace peft {

bool StepResult::finite() const { return std::isfinite(loss) && std::isfinite(grad_norm); }

const Tensor& DeferredSteps::add(const Tensor& loss_and_norm) {
  const Tensor finite = loss_and_norm.isfinite().all();
  sound_ = sound_.defined() ? sound_.logical_and(finite) : finite;
  pending_.push_back(loss_and_norm);
  return sound_;
}

void DeferredSteps::require_none() const {
  if (count() > 0)
    throw EngineError("USAGE", "Steps are queued: read what they came to (stepResults) before anything else");
}

std::vector<StepResult> DeferredSteps::read() {
  std::vector<StepResult> results;
  if (pending_.empty()) return results;
  const Tensor numbers = at::stack(pending_).to(at::kCPU).contiguous();
  const double* each = numbers.const_data_ptr<double>();
  for (int64_t i = 0; i < count(); i++, each += 2) {
    results.push_back({each[0], each[1]});
    if (!results.back().finite()) break;
  }
  pending_.clear();
  sound_ = Tensor();
  return results;
}

}  // namespace peft
