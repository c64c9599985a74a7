#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "cuda/shared_library.h"

namespace peft::test {

/// What else launcher_for() asks of a machine with a GPU: a libtorch that knows CUDA's devices and streams,
/// and an NVRTC (fake_libnvrtc.cc). Only for a libtorch that has no CUDA itself.
class FakeGpu {
 public:
  FakeGpu() {
    static const Guard guard;
    static const c10::impl::DeviceGuardImplRegistrar registrar(at::kCUDA, &guard);
    const cuda::SharedLibrary library(PEFT_FAKE_LIBNVRTC);
    if (!library.opened()) throw std::runtime_error(library.reason());
    library.find("fake_compiled", compiled_);
  }

  /// Programs so far.
  int compiled() const { return compiled_(); }

 private:
  /// Devices without a meaning, none of them counted, so that autograd starts no threads for them; a stream
  /// is any address.
  struct Guard final : c10::impl::DeviceGuardImplInterface {
    c10::DeviceType type() const override { return at::kCUDA; }
    c10::Device exchangeDevice(c10::Device device) const override { return device; }
    c10::Device getDevice() const override { return {at::kCUDA, 0}; }
    void setDevice(c10::Device) const override {}
    void uncheckedSetDevice(c10::Device) const noexcept override {}
    c10::Stream getStream(c10::Device device) const override {
      return c10::Stream(c10::Stream::DEFAULT, device);
    }
    c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
    c10::DeviceIndex deviceCount() const noexcept override { return 0; }
    void* getStreamNativeHandle(const c10::Stream) const override { return const_cast<Guard*>(this); }
  };

  int (*compiled_)() = nullptr;
};

}  // namespace peft::test
