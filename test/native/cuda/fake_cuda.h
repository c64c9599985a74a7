#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace peft::test {

/// Makes libtorch's CUDA devices work in a build without CUDA, on the memory of the CPU: whatever is asked of
/// one is done by the CPU's own kernels, and what a GPU would have to be waited for is counted. As on a GPU,
/// tensors of the CPU with dimensions do not mix with those of the device. Together with FakeDriver and
/// FakeGpu the engine runs whole on "cuda:N". For the rest of the process; devices are seen while one of
/// these lives.
class FakeCuda {
 public:
  FakeCuda();
  ~FakeCuda();
  FakeCuda(const FakeCuda&) = delete;

  struct Counts {
    int64_t uploads = 0;  // copies to the device
    /// Calls that return when the device has done all that was asked of it: numbers read, copies to the CPU,
    /// copies from memory that is not pinned, results whose size depends on numbers.
    int64_t waits = 0;
    int64_t operations = 0;
    /// Those of them that a GPU has work with, of libtorch; each is a launch at least.
    int64_t launches = 0;
  };
  /// Since the last call of this.
  Counts take_counts();
};

/// Calls of libtorch's flash attention so far (fake_flash.cc).
int64_t flash_calls();

/// The same memory as a tensor of another device. It keeps `t` alive.
at::Tensor on_device(const at::Tensor& t, at::Device device);

}  // namespace peft::test
