#include "core/device.h"

#include <ATen/Context.h>

#include "error.h"

namespace peft {

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const int count = cuda_device_count();
  const std::string index = name == "cuda" ? "0" : name.compare(0, 5, "cuda:") == 0 ? name.substr(5) : "";
  if (index.empty() || index.size() > 3 || index.find_first_not_of("0123456789") != std::string::npos) {
    throw EngineError("USAGE", "Unknown device \"" + name + "\"; expected cpu, cuda or cuda:N");
  }
  if (std::stoi(index) >= count) {
    throw EngineError(
        "DEVICE_UNAVAILABLE",
        "Device " + name + " was asked for, but libtorch sees " + std::to_string(count) + " CUDA devices",
        "Use --device cpu, or check the driver with nvidia-smi.");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(std::stoi(index)));
}

int cuda_device_count() {
  return at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

}  // namespace peft
