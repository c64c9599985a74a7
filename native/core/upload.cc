#include "core/upload.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

namespace peft {

Upload::Upload(int64_t numbers, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kInt);
  host_ = at::empty({numbers}, options.pinned_memory(device.is_cuda()));
  device_ = device.is_cpu() ? host_ : at::empty({numbers}, options.device(device));
}

template <typename T>
Upload::Place<T> Upload::take(int64_t count, at::ScalarType type) {
  TORCH_CHECK(used_ + count <= host_.numel(), "an upload is too small");
  const auto part = [&](const Tensor& all) { return all.narrow(0, used_, count).view(type); };
  const Place<T> place{static_cast<T*>(host_.mutable_data_ptr()) + used_, part(host_), part(device_)};
  used_ += count;
  return place;
}

Upload::Place<int32_t> Upload::ints(int64_t count) { return take<int32_t>(count, at::kInt); }
Upload::Place<float> Upload::floats(int64_t count) { return take<float>(count, at::kFloat); }

void Upload::send() {
  if (!device_.is_cpu()) device_.copy_(host_, /*non_blocking=*/true);
}

}  // namespace peft
