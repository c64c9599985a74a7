#include "fake_cuda.h"

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "cuda/shared_library.h"

namespace peft::test {
namespace {

using at::Tensor;

constexpr int kDevices = 7;
int alive = 0;
FakeCuda::Counts counts;
/// Blocks of memory that a real CUDA would have pinned.
std::set<const void*> pinned;
std::mutex pinned_mutex;

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* const data = c10::GetCPUAllocator()->raw_allocate(bytes);
    const std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.insert(data);
    return {data, data, &release, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void release(void* data) {
    const std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.erase(data);
    c10::GetCPUAllocator()->raw_deallocate(data);
  }
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return alive > 0; }
  c10::DeviceIndex deviceCount() const override { return alive > 0 ? kDevices : 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return false; }
  at::Allocator* getPinnedMemoryAllocator() const override {
    static PinnedAllocator allocator;
    return &allocator;
  }
  bool isPinnedPtr(const void* data) const override {
    const std::lock_guard<std::mutex> lock(pinned_mutex);
    return pinned.contains(data);
  }
};
const at::RegistererCUDAHooksRegistry registered_hooks(
    "CUDAHooks", at::CUDAHooksRegistry(), at::RegistererCUDAHooksRegistry::DefaultCreator<Hooks>);

/// The arguments of one call as the CPU takes them, and its results as the device has them.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op) {}

  void run(torch::jit::Stack* stack) {
    const size_t arguments = op_.schema().arguments().size();
    torch::jit::Stack inner;
    for (c10::IValue& value : torch::jit::pop(*stack, arguments)) inner.push_back(to_cpu(value));
    if (mixed_ && device_) {
      throw std::runtime_error(op_.schema().name() + ": a tensor of the CPU among those of a GPU");
    }
    op_.callBoxed(&inner);
    for (c10::IValue& value : inner) stack->push_back(from_cpu(value));
  }

 private:
  c10::IValue to_cpu(const c10::IValue& value) {
    if (value.isTensor()) return tensor_to_cpu(value.toTensor());
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& each : value.toTensorVector()) list.push_back(tensor_to_cpu(each));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& each : value.toOptionalTensorVector()) {
        list.push_back(each ? std::optional<Tensor>(tensor_to_cpu(*each)) : std::nullopt);
      }
      return list;
    }
    if (value.isDevice() && value.toDevice().is_cuda()) {
      device_ = value.toDevice();
      return at::Device(at::kCPU);
    }
    return value;
  }

  Tensor tensor_to_cpu(const Tensor& t) {
    if (!t.defined()) return t;
    if (!t.is_cuda()) {
      mixed_ = mixed_ || t.dim() > 0;
      return t;
    }
    device_ = t.device();
    given_.push_back(t);
    // An empty one may be a result that is yet to get its size.
    seen_.push_back(t.numel() == 0 ? at::empty(t.sizes(), t.options().device(at::kCPU))
                                   : on_device(t, at::kCPU));
    return seen_.back();
  }

  c10::IValue from_cpu(const c10::IValue& value) {
    if (value.isTensor()) return tensor_from_cpu(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<Tensor> list;
    for (const Tensor& each : value.toTensorVector()) list.push_back(tensor_from_cpu(each));
    return list;
  }

  Tensor tensor_from_cpu(const Tensor& t) {
    if (!t.defined()) return t;
    for (size_t i = 0; i < seen_.size(); i++) {
      if (!seen_[i].is_same(t)) continue;
      if (t.sizes() != given_[i].sizes()) {
        c10::TensorImpl* const result = given_[i].unsafeGetTensorImpl();
        result->set_storage_keep_dtype(on_device(t, given_[i].device()).storage());
        result->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
      }
      return given_[i];
    }
    // As a view is: of a tensor from outside inference mode it is one from outside, too.
    const bool outside = std::ranges::any_of(given_, [](const Tensor& each) { return !each.is_inference(); });
    const c10::InferenceMode mode(!outside && c10::InferenceMode::is_enabled());
    return on_device(t, device_.value());
  }

  const c10::OperatorHandle& op_;
  std::optional<at::Device> device_;
  bool mixed_ = false;
  std::vector<Tensor> given_, seen_;
};

/// Whether the device has to do something: views and new memory are the host's business.
bool launches(const c10::FunctionSchema& schema) {
  const auto is_view = [](const c10::Argument& result) {
    return result.alias_info() != nullptr && !result.alias_info()->isWrite();
  };
  return !std::ranges::any_of(schema.returns(), is_view) && !schema.name().starts_with("aten::empty");
}

/// Every operation that CUDA's half of libtorch would have a kernel for.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  // The size of the result, or a number of the CPU's, depends on what the device has computed.
  static const std::set<std::string> waiting = {
      "aten::_local_scalar_dense", "aten::nonzero",  "aten::equal",
      "aten::masked_select",       "aten::_unique2", "aten::repeat_interleave"};
  counts.operations++;
  if (launches(op.schema())) counts.launches++;
  if (waiting.contains(op.schema().name())) counts.waits++;
  Call(op).run(stack);
}

Tensor& copy(Tensor& to, const Tensor& from, bool non_blocking) {
  counts.operations++;
  counts.launches++;
  if (to.is_cuda() && !from.is_cuda()) {
    counts.uploads++;
    const bool from_pinned = at::detail::getCUDAHooks().isPinnedPtr(from.storage().data());
    if (!non_blocking || !from_pinned) counts.waits++;
  } else if (!to.is_cuda()) {
    counts.waits++;
  }
  Tensor target = on_device(to, at::kCPU);
  target.copy_(on_device(from, at::kCPU));
  return to;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) { m.impl("copy_", &copy); }

}  // namespace

Tensor on_device(const Tensor& t, at::Device device) {
  const auto key = device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA;
  auto* const owner = new Tensor(t);
  c10::DataPtr data(
      const_cast<void*>(t.storage().data()), owner, [](void* owned) { delete static_cast<Tensor*>(owned); },
      device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), t.storage().nbytes(), std::move(data), nullptr,
                       false);
  Tensor other =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), t.dtype());
  other.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return other;
}

FakeCuda::FakeCuda() { alive++; }
FakeCuda::~FakeCuda() { alive--; }

FakeCuda::Counts FakeCuda::take_counts() { return std::exchange(counts, {}); }

}  // namespace peft::test
