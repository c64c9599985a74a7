#pragma once

#include <string>

#include "core/adam.h"
#include "core/trained_parameters.h"

namespace peft {

/// Writes Adam's moments and its count of steps as safetensors and syncs the file: `exp_avg.KEY` and
/// `exp_avg_sq.KEY` in fp32 for everything that trains, with KEY and shape as in the file of the weights, and
/// `step`, one I64.
void save_optimizer(const std::string& path, const TrainedParameters& parameters, const Adam& adam);

/// Reads it back, to the bit. Throws CHECKPOINT_CORRUPT for a file of other parameters; nothing has changed
/// then.
void load_optimizer(const std::string& path, const TrainedParameters& parameters, Adam& adam);

}  // namespace peft
