#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace peft {

using at::Tensor;

/// 32-bit numbers of several kinds that go to a device in one copy: to a GPU from pinned memory, so that
/// nobody waits for it. The CPU reads them where they were written.
class Upload {
 public:
  template <typename T>
  struct Place {
    T* data;       // to be written before send()
    Tensor here;   // the same as a tensor on the CPU
    Tensor there;  // on the device, to be read after send()
  };

  /// Room for so many numbers.
  Upload(int64_t numbers, at::Device device);

  Place<int32_t> ints(int64_t count);
  Place<float> floats(int64_t count);
  void send();

 private:
  template <typename T>
  Place<T> take(int64_t count, at::ScalarType type);

  int64_t used_ = 0;
  Tensor host_, device_;
};

}  // namespace peft
