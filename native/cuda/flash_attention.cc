#include "cuda/flash_attention.h"

#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "cuda/driver.h"

namespace peft::cuda {
namespace {

// What libtorch's flash attention takes (aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp).
constexpr int kArchitecture = 80;
constexpr int64_t kHeadMultiple = 8, kMostHead = 256;

bool is_new_enough(at::Device device) {
  static std::mutex mutex;
  static std::map<int, bool> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device.index());
  if (found != known.end()) return found->second;
  bool& enough = known[device.index()];
  try {
    enough = Driver().architecture(device.index()) >= kArchitecture;
  } catch (const EngineError&) {
    // No driver that can be asked: our own kernels, or plain calls, do it.
  }
  return enough;
}

bool switched_off() {
  const char* const value = std::getenv("PEFT_TRAIN_FLASH_ATTENTION");
  return value != nullptr && std::string(value) == "off";
}

/// Makes libtorch add in one order, for a scope: it adds the gradient of the query with atomics otherwise.
class OneOrder {
 public:
  OneOrder()
      : deterministic_(context_.deterministicAlgorithms()),
        warn_only_(context_.deterministicAlgorithmsWarnOnly()),
        fill_(context_.deterministicFillUninitializedMemory()) {
    context_.setDeterministicAlgorithms(true, false);
    context_.setDeterministicFillUninitializedMemory(false);
  }
  ~OneOrder() {
    context_.setDeterministicAlgorithms(deterministic_, warn_only_);
    context_.setDeterministicFillUninitializedMemory(fill_);
  }
  OneOrder(const OneOrder&) = delete;
  OneOrder& operator=(const OneOrder&) = delete;

 private:
  at::Context& context_ = at::globalContext();
  bool deterministic_, warn_only_, fill_;
};

int64_t longest_text(const PackedLayout& layout) {
  const int32_t* const offsets = layout.offsets.const_data_ptr<int32_t>();
  int32_t longest = 0;
  for (int64_t i = 0; i < layout.sequences; i++) longest = std::max(longest, offsets[i + 1] - offsets[i]);
  return longest;
}

/// One forward pass, and what its backward pass asks for.
struct Pass {
  Tensor query, key, value;  // [T, heads, size], views of one matrix
  int64_t longest;
  double scale;
  Tensor out;  // [T, heads, size]
  Tensor log_sum, random_state, unused;

  Pass(const Tensor& qkv, const PackedLayout& layout, int64_t heads, at::ScalarType type)
      : longest(longest_text(layout)) {
    const int64_t size = qkv.size(1) / 3 / heads;
    scale = 1.0 / std::sqrt(static_cast<double>(size));
    const Tensor parts = qkv.to(type).view({qkv.size(0), 3, heads, size});
    query = parts.select(1, 0);
    key = parts.select(1, 1);
    value = parts.select(1, 2);
    const Tensor& offsets = layout.device_offsets;
    Tensor mask;
    std::tie(out, log_sum, random_state, unused, mask) =
        at::_flash_attention_forward(query, key, value, offsets, offsets, longest, longest, /*dropout_p=*/0.0,
                                     /*is_causal=*/false, /*return_debug_mask=*/false, scale);
  }
};

}  // namespace

bool has_flash_attention(at::Device device, int64_t head_size) {
  return device.is_cuda() && head_size % kHeadMultiple == 0 && head_size <= kMostHead && !switched_off() &&
         is_new_enough(device);
}

void flash_attention(const Tensor& qkv, const PackedLayout& layout, int64_t heads, at::ScalarType type,
                     Tensor& context) {
  context.copy_(Pass(qkv, layout, heads, type).out.reshape(context.sizes()));
}

void flash_attention_backward(const Tensor& dcontext, const Tensor& qkv, const PackedLayout& layout,
                              int64_t heads, at::ScalarType type, Tensor& dqkv) {
  const Pass pass(qkv, layout, heads, type);
  const Tensor gradient = dcontext.to(type).view(pass.query.sizes());
  const OneOrder one_order;
  const auto [dquery, dkey, dvalue] = at::_flash_attention_backward(
      gradient, pass.query, pass.key, pass.value, pass.out, pass.log_sum, layout.device_offsets,
      layout.device_offsets, pass.longest, pass.longest, /*dropout_p=*/0.0, /*is_causal=*/false,
      pass.random_state, pass.unused, pass.scale);
  const Tensor parts = dqkv.view({dqkv.size(0), 3, heads, -1});
  parts.select(1, 0).copy_(dquery);
  parts.select(1, 1).copy_(dkey);
  parts.select(1, 2).copy_(dvalue);
}

}  // namespace peft::cuda
