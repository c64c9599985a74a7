#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "cuda/launcher.h"

namespace peft::cuda {

struct QuantCase {
  std::string name;
  /// Throws where the kernels and plain ATen calls on the CPU disagree.
  std::function<void()> run;
};

/// Every function of cuda/quant_kernels.h and cuda/quant_linear.h over many shapes and types, on a device, by
/// a launcher. `large` adds shapes of real models, which take a GPU.
std::vector<QuantCase> quant_cases(at::Device device, Launcher& launcher, bool large);

}  // namespace peft::cuda
