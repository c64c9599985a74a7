#pragma once

#include <string>
#include <vector>

#include "core/encoder.h"
#include "core/example_batch.h"
#include "core/loaded_adapter.h"
#include "core/objective.h"

namespace peft {

struct PassOptions {
  uint64_t seed = 0;
  uint32_t step = 0;
  int64_t micro_batch_tokens = 0;
  LossSpec loss = {};
  /// The one that is trained.
  std::string adapter = kDefaultAdapter;
};

/// What a batch came to; nobody has waited for the device yet.
struct BatchLoss {
  Tensor value;                 // fp64, of no dimension, on the device
  std::vector<Tensor> vectors;  // pooled, of all texts, run by run
};

/// Forward and backward over a batch of any size, in micro-batches.
class BatchGradient {
 public:
  /// Of an adapter, or, where that is null, of the model itself.
  BatchGradient(Encoder& encoder, TrainedParameters& parameters, LoadedAdapter* lora)
      : encoder_(encoder), parameters_(parameters), lora_(lora) {}

  /// The loss of the batch; leaves its gradient, times `scale`, in what trains.
  BatchLoss operator()(const ExampleBatch& batch, const PassOptions& options, double scale);

 private:
  /// Makes what trains ready for passes with gradients.
  void use(const DropoutPlan& dropout);
  /// Run by run: the loss is a mean over examples that know nothing of each other.
  BatchLoss accumulate_apart(const ExampleBatch& batch, const DeviceExamples& examples,
                             const Objective& objective, double scale);
  /// All runs forward, the loss of all their vectors, then each run forward again and backward, with the same
  /// dropout masks: exact, in the memory of one run. Gao et al., "Scaling Deep Contrastive Learning Batch
  /// Size under Memory Limited Setup" (GradCache), 2021.
  BatchLoss accumulate_together(const ExampleBatch& batch, const DeviceExamples& examples,
                                const Objective& objective, double scale);
  /// The loss of the texts that are to stay where they are, times `weight_of_mean`. Without dropout, whose
  /// noise would pass for drift.
  Tensor accumulate_kept(const DeviceExamples& examples, double weight_of_mean, double scale);
  Tensor no_loss() const;

  Encoder& encoder_;
  TrainedParameters& parameters_;
  LoadedAdapter* lora_;
};

}  // namespace peft
