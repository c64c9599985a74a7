#pragma once

#include "device_case.h"

namespace peft::cuda {

/// For a device that is simulated: one layer and one step; a few layers and steps; these and the shape of a
/// real model.
enum class ModelSize { kLeast, kSmall, kReal };

/// The whole engine on a device, as Session takes its name, against the CPU: vectors, loss and gradients, and
/// a few steps of training; and steps that are not waited for against those that are.
std::vector<DeviceCase> model_cases(const std::string& device, ModelSize size);

}  // namespace peft::cuda
