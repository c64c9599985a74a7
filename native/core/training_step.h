#pragma once

#include <vector>

#include "core/adam.h"
#include "core/batch_gradient.h"
#include "core/deferred_steps.h"

namespace peft {

struct StepOptions {
  PassOptions pass;
  AdamOptions adam;
  double max_grad_norm = 0;
  /// What the loss is multiplied with for backward, and the gradients divided by: keeps small ones within
  /// fp16's range. 0: neither, and a gradient that is not finite is an error.
  double loss_scale = 0;
};

/// What a step trains: an adapter, or the model itself, and then `lora` is null.
struct Trained {
  TrainedParameters& parameters;
  Adam& adam;
  DeferredSteps& deferred;
  LoadedAdapter* lora;
};

/// As Session has them.
StepResult take_step(Encoder& encoder, const Trained& what, const ExampleBatch& batch,
                     const StepOptions& options);
void queue_step(Encoder& encoder, const Trained& what, const ExampleBatch& batch, const StepOptions& options);
std::vector<StepResult> step_results(const Trained& what);
/// The loss; leaves its gradient in what trains.
double take_gradient(Encoder& encoder, const Trained& what, const ExampleBatch& batch,
                     const PassOptions& options);

}  // namespace peft
