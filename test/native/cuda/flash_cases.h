#pragma once

#include "device_case.h"

namespace peft::cuda {

/// libtorch's flash attention as the engine calls it; none where the device has none.
std::vector<DeviceCase> flash_cases(at::Device device, bool large);

}  // namespace peft::cuda
