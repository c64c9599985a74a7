#include "flash_cases.h"

#include <ATen/ATen.h>

#include "core/packed_batch.h"
#include "cuda/flash_attention.h"

namespace peft::cuda {
namespace {

struct Heads {
  int64_t count, size;
  std::vector<int32_t> lengths;
};

/// The probabilities and the result are rounded to 11 or 8 bits; sums are fp32. Of the largest entry;
/// gradients go through twice as many roundings.
double rounding(at::ScalarType type) { return type == at::kHalf ? 2e-3 : 1.6e-2; }

void check_flash(at::Device device, const Heads& h, at::ScalarType type) {
  TokenBatch batch;
  batch.offsets = {0};
  for (const int32_t n : h.lengths) batch.offsets.push_back(batch.offsets.back() + n);
  batch.ids.resize(static_cast<size_t>(batch.offsets.back()));
  const PackedLayout plain = make_micro_batch(batch, 0, batch.texts(), at::kCPU).layout,
                     layout = make_micro_batch(batch, 0, batch.texts(), device).layout;
  const int64_t d = h.count * h.size, tokens = plain.tokens;
  const auto random = [&](int64_t columns) { return at::randn({tokens, columns}).to(type).to(at::kFloat); };
  const Tensor qkv = random(3 * d), g = random(d);
  Tensor context = at::empty({tokens, d}), lse = at::empty({tokens, h.count}),
         dqkv = at::empty({tokens, 3 * d});
  reference::attention(qkv, plain, h.count, {}, context, lse);
  reference::attention_backward(g, qkv, lse, plain, h.count, {}, dqkv);

  const auto unknown = [&](int64_t columns) {
    return at::full({tokens, columns}, NAN, at::TensorOptions().device(device));
  };
  Tensor found = unknown(d), gradient = unknown(3 * d), again = unknown(3 * d);
  flash_attention(qkv.to(device), layout, h.count, type, found);
  require_close(found, context, rounding(type), "context");
  flash_attention_backward(g.to(device), qkv.to(device), layout, h.count, type, gradient);
  require_close(gradient, dqkv, 2 * rounding(type), "gradient");
  flash_attention_backward(g.to(device), qkv.to(device), layout, h.count, type, again);
  require_equal(again, gradient, "the gradient once more");
}

}  // namespace

std::vector<DeviceCase> flash_cases(at::Device device, bool large) {
  std::vector<Heads> all = {{3, 8, {1, 2, 31, 32, 33}}, {2, 32, {32, 1, 65}}, {2, 64, {33, 2, 140}}};
  if (large) {
    std::vector<int32_t> questions;
    for (int i = 0; i < 128; i++) questions.push_back(1 + i * 37 % 61);
    for (const int64_t size : {32, 64, 128}) all.push_back({12, size, questions});
    all.push_back({12, 32, {512, 1, 511, 300}});
  }
  std::vector<DeviceCase> cases;
  for (const Heads& h : all) {
    if (!has_flash_attention(device, h.size)) continue;
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      cases.push_back({"flash attention in " + std::string(at::toString(type)) + ", " +
                           std::to_string(h.count) + " heads of " + std::to_string(h.size) + ", " +
                           std::to_string(h.lengths.size()) + " texts",
                       [=] {
                         at::manual_seed(3);
                         check_flash(device, h, type);
                       }});
    }
  }
  return cases;
}

}  // namespace peft::cuda
