#pragma once

#include "device_case.h"

namespace peft::cuda {

/// Every operation of kernels/kernels.h by the kernels of a launcher, over many shapes, against its reference
/// on the CPU. `large` adds shapes of real models, which take a GPU.
std::vector<DeviceCase> fused_cases(at::Device device, Launcher& launcher, bool large);

}  // namespace peft::cuda
