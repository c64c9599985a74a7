#pragma once

#include "device_case.h"

namespace peft::cuda {

/// Every function of cuda/quant_kernels.h and cuda/quant_linear.h over many shapes and types, on a device, by
/// a launcher. `large` adds shapes of real models, which take a GPU.
std::vector<DeviceCase> quant_cases(at::Device device, Launcher& launcher, bool large);

}  // namespace peft::cuda
