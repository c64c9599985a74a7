#pragma once

#include "core/trained_parameters.h"

namespace peft {

struct AdamOptions {
  double learning_rate = 5e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  /// Decoupled (AdamW); 0 gives plain Adam. Loshchilov and Hutter, "Decoupled weight decay regularization",
  /// 2019.
  double weight_decay = 0;
};

/// Adam over one flat fp32 buffer, in the order of operations of torch.optim.AdamW.
class Adam {
 public:
  explicit Adam(const TrainedParameters& parameters);
  /// With `sound`, a bool of no dimension on the device, nothing but the count of steps changes where it is
  /// false: nobody waits to learn which it is.
  void step(TrainedParameters& parameters, const AdamOptions& options, const Tensor& sound = {});
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  /// Flat, as the parameters are.
  const Tensor& first_moment() const { return first_moment_; }
  const Tensor& second_moment() const { return second_moment_; }

 private:
  Tensor first_moment_, second_moment_;
  int64_t steps_ = 0;
};

}  // namespace peft
