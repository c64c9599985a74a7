#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace peft {

using at::Tensor;

struct StepResult {
  double loss = 0;
  double grad_norm = 0;
  /// With a loss scale: the first tensor whose gradient was not finite, so that nothing was changed.
  std::string not_finite = {};

  bool finite() const;
};

/// Steps that were asked of a device and not yet waited for: what they came to is still there.
class DeferredSteps {
 public:
  /// Takes in the loss and the norm of the gradient of a step, fp64 [2]. Gives whether these and those of all
  /// steps before it are finite: a bool of no dimension, on the device.
  const Tensor& add(const Tensor& loss_and_norm);
  int64_t count() const { return static_cast<int64_t>(pending_.size()); }
  /// Throws USAGE while there are any.
  void require_none() const;
  /// Waits, and forgets them. In order, up to the first that is not finite.
  std::vector<StepResult> read();

 private:
  std::vector<Tensor> pending_;
  Tensor sound_;
};

}  // namespace peft
