#pragma once

#include <ATen/core/Tensor.h>

#include "cuda/launcher.h"

namespace peft::test {

/// Prints what each kernel takes on a GPU, beside plain ATen calls: a line of JSON each, {"event":"kernel",
/// ...}.
void time_kernels(at::Device device, cuda::Launcher& launcher);

}  // namespace peft::test
