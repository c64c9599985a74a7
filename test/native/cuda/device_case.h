#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "cuda/launcher.h"

// What the checks have in common that run on a GPU (gpu_main.cc) and, through the shim, on the CPU
// (launch_test.cc).

namespace peft::cuda {

using at::Tensor;

struct DeviceCase {
  std::string name;
  /// Throws where the device and plain ATen calls on the CPU disagree.
  std::function<void()> run;
};

void require(bool ok, const std::string& what);
/// |found - expected| <= relative * the largest expected.
void require_close(const Tensor& found, const Tensor& expected, double relative, const std::string& what);
void require_equal(const Tensor& found, const Tensor& expected, const std::string& what);

}  // namespace peft::cuda
