#include "core/merged_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>

#include "core/adapter_layers.h"
#include "error.h"
#include "weights/linear_parts.h"

namespace peft {
namespace {

Tensor in_double(const Tensor& t) { return t.to(at::kCPU, at::kDouble); }

/// The module's rows of W, in double precision.
void add_module(const LoraModule& m, Tensor rows) {
  rows.addmm_(in_double(m.b), in_double(m.a), 1, m.scale);
  if (m.origin_a.defined()) rows.addmm_(in_double(m.origin_b), in_double(m.origin_a), 1, -m.scale);
  if (!m.magnitude.defined()) return;
  const Tensor norm = at::linalg_vector_norm(rows, 2, at::IntArrayRef{1});
  rows.mul_((in_double(m.magnitude) / norm).unsqueeze(1));
}

Tensor rounded_once(const Tensor& sums, const std::string& name) {
  Tensor rounded = sums.to(at::kFloat);
  if (rounded.isfinite().all().item<bool>()) return rounded;
  throw EngineError("NOT_FINITE", name + " would hold NaN or infinity with the adapter in it",
                    "The weights, or what the adapter adds to them, are broken.");
}

/// `modules` of the model lie one below the other in the matrix.
MergedLinear merge(const PackedLora& lora, const FrozenLinear& base, const Tensor& bias, int64_t modules,
                   const WeightStorage& storage, at::Device device) {
  MergedLinear merged;
  if (lora.empty()) return merged;
  const std::string& first = lora.slices().front().of.module->name;
  Tensor weight = in_double(base.dequantize());
  Tensor shifted;
  for (const PackedLora::Slice& slice : lora.slices()) {
    if (slice.origin) continue;
    const LoraSlice& of = slice.of;
    add_module(*of.module, weight.narrow(0, of.begin, of.size));
    if (!of.module->bias.defined()) continue;
    if (!shifted.defined()) shifted = in_double(bias);
    shifted.narrow(0, of.begin, of.size).add_(in_double(of.module->bias), of.module->scale);
  }
  LinearParts parts(storage, device);
  for (const Tensor& part : weight.split(base.out_features() / modules))
    parts.add(rounded_once(part, "the weight of " + first), "the weight of " + first + " with the adapter");
  merged.weight = parts.join();
  if (shifted.defined()) merged.bias = rounded_once(shifted, "the bias of " + first).to(device);
  return merged;
}

}  // namespace

MergedWeights::MergedWeights(const std::vector<LayerFactors>& factors, const OwnParameters* own,
                             const BertWeights& base, const WeightStorage& storage, at::Device device) {
  static const OwnLayer kNone;
  for (size_t i = 0; i < factors.size(); i++) {
    const LayerFactors& lora = factors[i];
    const LayerWeights& b = base.layers[i];
    const OwnLayer& o = own == nullptr ? kNone : *own->layer(static_cast<int64_t>(i));
    const auto merged = [&](const PackedLora& part, const std::unique_ptr<FrozenLinear>& mine,
                            const std::unique_ptr<FrozenLinear>& weight, const Tensor& my_bias,
                            const Tensor& bias, int64_t modules) {
      return merge(part, mine ? *mine : *weight, my_bias.defined() ? my_bias : bias, modules, storage,
                   device);
    };
    layers_.push_back({merged(lora.qkv, o.qkv, b.qkv, o.values.qkv.bias, b.qkv_bias, 3),
                       merged(lora.attention_output, o.attention_output, b.attention_output,
                              o.values.attention_output.bias, b.attention_output_bias, 1),
                       merged(lora.intermediate, o.intermediate, b.intermediate, o.values.intermediate.bias,
                              b.intermediate_bias, 1),
                       merged(lora.output, o.output, b.output, o.values.output.bias, b.output_bias, 1)});
    for (const PackedLora* part : {&lora.qkv, &lora.attention_output, &lora.intermediate, &lora.output}) {
      for (const PackedLora::Slice& slice : part->slices()) modules_ += slice.origin ? 0 : 1;
    }
  }
}

int64_t MergedWeights::bytes() const {
  int64_t total = 0;
  for (const MergedLayer& l : layers_) {
    for (const MergedLinear* m : {&l.qkv, &l.attention_output, &l.intermediate, &l.output}) {
      if (m->weight) total += m->weight->bytes();
      if (m->bias.defined()) total += static_cast<int64_t>(m->bias.nbytes());
    }
  }
  return total;
}

}  // namespace peft
