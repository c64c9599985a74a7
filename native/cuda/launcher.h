#pragma once

#include <c10/core/Device.h>

#include <string>

#include "cuda/driver.h"

namespace peft::cuda {

/// Runs a kernel of one of the .cu files, kThreads threads a block. The engine's is the GPU's; the tests'
/// runs the same text on the CPU.
class Launcher {
 public:
  virtual ~Launcher() = default;

  /// `args` is the struct that the kernel takes (kernel_args.h).
  template <typename Args>
  void launch(const char* program, const std::string& kernel, Grid grid, const Args& args) {
    run(program, kernel, grid, &args, sizeof(Args));
  }

 protected:
  virtual void run(const char* program, const std::string& kernel, Grid grid, const void* args,
                   size_t bytes) = 0;
};

/// The launcher of a GPU: its kernels compiled for it (once, then from the cache folder) and loaded. Null for
/// the CPU, where PEFT_TRAIN_CUDA_KERNELS is "off", and, after one warning, where that fails; the plain ATen
/// versions serve then.
Launcher* launcher_for(c10::Device device);

/// What launcher_for(device) failed for; empty where it did not.
std::string launcher_failure(c10::Device device);

}  // namespace peft::cuda
