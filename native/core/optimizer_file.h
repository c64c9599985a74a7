#pragma once

#include <string>

#include "core/adam.h"
#include "core/adapter.h"

namespace peft {

/// Writes Adam's moments and its count of steps as safetensors and syncs the file: `exp_avg.KEY` and
/// `exp_avg_sq.KEY` in fp32 for every trained matrix, with KEY and shape as in the adapter's own file, and
/// `step`, one I64.
void save_optimizer(const std::string& path, const Adapter& adapter, const Adam& adam);

/// Reads it back, to the bit. Throws CHECKPOINT_CORRUPT for a file of another adapter; nothing has changed
/// then.
void load_optimizer(const std::string& path, const Adapter& adapter, Adam& adam);

}  // namespace peft
