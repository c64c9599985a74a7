#pragma once

#include "cuda/launcher.h"
#include "weights/frozen_linear.h"

namespace peft::cuda {

/// The frozen weights of weights/frozen_linear.h on a GPU, multiplied by our kernels; null where
/// launcher_for(device) is, so that the caller takes the plain ATen version.
std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device);
std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, Int8Gradient gradient);

/// The same with a launcher of the caller's, which outlives them.
std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device, Launcher& launcher);
std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, Launcher& launcher,
                                               Int8Gradient gradient = Int8Gradient::kExact);

}  // namespace peft::cuda
