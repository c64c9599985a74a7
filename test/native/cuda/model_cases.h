#pragma once

#include "device_case.h"

namespace peft::cuda {

/// The whole engine on a device, as Session takes its name, against the CPU: vectors, loss and gradients, and
/// a few steps of training. `large` adds the shape of a real model.
std::vector<DeviceCase> model_cases(const std::string& device, bool large);

}  // namespace peft::cuda
