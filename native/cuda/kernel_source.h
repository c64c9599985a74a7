#pragma once

#include <vector>

namespace peft::cuda {

/// A file of this folder as text: the engine carries its kernels as source and compiles them for the GPU it
/// finds.
struct KernelSource {
  const char* name;  // as in #include
  const char* text;
};

/// The .cu files. The build writes these two (embed.cmake).
const std::vector<KernelSource>& kernel_programs();
/// The headers that they include.
const std::vector<KernelSource>& kernel_headers();

}  // namespace peft::cuda
