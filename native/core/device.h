#pragma once

#include <c10/core/Device.h>

#include <string>

namespace peft {

/// `cpu`, `cuda` or `cuda:N`. Throws USAGE for another name, DEVICE_UNAVAILABLE for a device that is not
/// there.
at::Device parse_device(const std::string& name);

/// Number of CUDA devices that libtorch sees; 0 without a CUDA build or driver.
int cuda_device_count();

}  // namespace peft
