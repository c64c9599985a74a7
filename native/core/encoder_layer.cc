#include "core/encoder_layer.h"

#include "cuda/flash_attention.h"

namespace peft {
namespace {

RowMoments take_moments(Buffer& buffer, int64_t tokens, at::Device device) {
  const Tensor both = buffer.take(2, tokens, device);
  return {both[0], both[1]};
}

Tensor projected(LoraLinear& linear, const Tensor& dy) {
  return linear.adapted() ? linear.project_gradient(dy) : Tensor();
}

}  // namespace

LayerActivations LayerBuffers::take(int64_t tokens, const ModelShape& shape, bool context,
                                    at::Device device) {
  const int64_t d = shape.hidden_size;
  return {{},
          qkv_.take(tokens, 3 * d, device),
          context ? context_.take(tokens, d, device) : Tensor(),
          lse_.take(tokens, shape.num_heads, device),
          attention_sum_.take(tokens, d, device),
          take_moments(attention_moments_, tokens, device),
          intermediate_.take(tokens, shape.intermediate_size, device),
          output_sum_.take(tokens, d, device),
          take_moments(output_moments_, tokens, device)};
}

int64_t LayerBuffers::bytes() const {
  return qkv_.bytes() + context_.bytes() + lse_.bytes() + attention_sum_.bytes() +
         attention_moments_.bytes() + intermediate_.bytes() + output_sum_.bytes() + output_moments_.bytes();
}

EncoderLayer::EncoderLayer(const ModelShape& shape, const LayerWeights& weights, int64_t index)
    : shape_(shape),
      base_(weights),
      attention_output_bias_(weights.attention_output_bias),
      intermediate_bias_(weights.intermediate_bias),
      output_bias_(weights.output_bias),
      attention_norm_(weights.attention_norm),
      output_norm_(weights.output_norm),
      index_(index),
      qkv_(weights.qkv.get(), weights.qkv_bias),
      // The biases of these three are added by the fused kernel that follows each.
      attention_output_(weights.attention_output.get(), Tensor()),
      intermediate_(weights.intermediate.get(), Tensor()),
      output_(weights.output.get(), Tensor()) {}

void EncoderLayer::take(const OwnLayer* own, const MergedLayer* merged) {
  const bool replaces = own != nullptr || merged != nullptr;
  if (!replaces && !replaced_) return;
  static const OwnLayer kNoneOwn;
  static const MergedLayer kNoneMerged;
  replaced_ = replaces;
  const OwnLayer& o = own != nullptr ? *own : kNoneOwn;
  const MergedLayer& m = merged != nullptr ? *merged : kNoneMerged;
  const auto tensor = [](const Tensor& mine, const Tensor& base) { return mine.defined() ? mine : base; };
  const auto norm = [&](const NormTensors& mine, const LayerNormWeights& base) {
    return LayerNormWeights{tensor(mine.gamma, base.gamma), tensor(mine.beta, base.beta), base.eps};
  };
  const auto linear = [](const MergedLinear& merged, const std::unique_ptr<FrozenLinear>& mine,
                         const std::unique_ptr<FrozenLinear>& base) {
    return merged.weight ? merged.weight.get() : mine ? mine.get() : base.get();
  };
  const auto bias = [&](const MergedLinear& merged, const LinearTensors& mine, const Tensor& base) {
    return tensor(merged.bias, tensor(mine.bias, base));
  };
  qkv_.set_base(linear(m.qkv, o.qkv, base_.qkv), bias(m.qkv, o.values.qkv, base_.qkv_bias));
  attention_output_.set_base(linear(m.attention_output, o.attention_output, base_.attention_output),
                             Tensor());
  intermediate_.set_base(linear(m.intermediate, o.intermediate, base_.intermediate), Tensor());
  output_.set_base(linear(m.output, o.output, base_.output), Tensor());
  attention_output_bias_ = bias(m.attention_output, o.values.attention_output, base_.attention_output_bias);
  intermediate_bias_ = bias(m.intermediate, o.values.intermediate, base_.intermediate_bias);
  output_bias_ = bias(m.output, o.values.output, base_.output_bias);
  attention_norm_ = norm(o.values.attention_norm, base_.attention_norm);
  output_norm_ = norm(o.values.output_norm, base_.output_norm);
  gradients_ = o.gradients;
}

EncoderLayer::Part EncoderLayer::lowest_trained() const {
  if (qkv_.adapted() || gradients_.qkv.any()) return Part::kQkv;
  if (attention_output_.adapted() || gradients_.attention_output.any()) return Part::kAttentionOutput;
  if (gradients_.attention_norm.any()) return Part::kAttentionNorm;
  if (intermediate_.adapted() || gradients_.intermediate.any()) return Part::kIntermediate;
  if (output_.adapted() || gradients_.output.any()) return Part::kOutput;
  return gradients_.output_norm.any() ? Part::kOutputNorm : Part::kNone;
}

int64_t EncoderLayer::gradient_bytes() const {
  return qkv_.gradient_bytes() + attention_output_.gradient_bytes() + intermediate_.gradient_bytes() +
         output_.gradient_bytes();
}

LoraFloats EncoderLayer::planned_lora(int64_t tokens, bool training) const {
  LoraFloats most;
  for (const LoraLinear* linear : {&qkv_, &attention_output_, &intermediate_, &output_})
    most = larger(most, linear->planned(tokens, training));
  return most;
}

void EncoderLayer::use(const std::vector<AdapterLayers*>& adapters, LoraUse use,
                       const Dropout& adapter_dropout, LayerScratch& scratch) {
  const auto use_in = [&](LoraLinear& linear, PackedLora LayerFactors::*part) {
    std::vector<LoraLinear::Versioned> loras;
    for (AdapterLayers* adapter : adapters)
      loras.push_back({&(adapter->layer(index_).*part), adapter->version()});
    linear.use(loras, use, adapter_dropout, scratch.lora);
  };
  use_in(qkv_, &LayerFactors::qkv);
  use_in(attention_output_, &LayerFactors::attention_output);
  use_in(intermediate_, &LayerFactors::intermediate);
  use_in(output_, &LayerFactors::output);
}

bool EncoderLayer::in_16_bits(const Dropout& dropout, at::Device device) const {
  return base_.products != at::kFloat && !dropout.active() &&
         cuda::has_flash_attention(device, shape_.hidden_size / shape_.num_heads);
}

void EncoderLayer::forward(const MicroBatch& micro, const DropoutPlan& dropout, LayerActivations& kept,
                           LayerScratch& scratch, Tensor& out) {
  const int64_t tokens = micro.layout.tokens, d = shape_.hidden_size, f = shape_.intermediate_size;
  const at::Device device = out.device();
  const uint32_t t0 = micro.first_token;

  const auto observe = [&](LayerMatrix matrix, const Tensor& x) {
    if (scratch.observe) scratch.observe(index_, matrix, x);
  };
  observe(LayerMatrix::kQkv, kept.input);
  qkv_.forward(kept.input, micro.adapters, t0, kept.qkv);
  Tensor context = kept.context.defined() ? kept.context : scratch.context.take(tokens, d, device);
  const Dropout attention_dropout = dropout.attention(site(DropoutSite::kAttention), t0);
  if (in_16_bits(attention_dropout, device)) {
    cuda::flash_attention(kept.qkv, micro.layout, shape_.num_heads, base_.products, context);
  } else {
    attention(kept.qkv, micro.layout, shape_.num_heads, attention_dropout, context, kept.lse);
  }
  observe(LayerMatrix::kAttentionOutput, context);
  attention_output_.forward(context, micro.adapters, t0, kept.attention_sum);
  Tensor normed = scratch.attention_normed.take(tokens, d, device);
  residual_layer_norm(kept.attention_sum, attention_output_bias_, kept.input, attention_norm_,
                      dropout.hidden(site(DropoutSite::kAttentionOutput), t0), normed,
                      kept.attention_moments);

  observe(LayerMatrix::kIntermediate, normed);
  intermediate_.forward(normed, micro.adapters, t0, kept.intermediate);
  Tensor activated = scratch.gelu.take(tokens, f, device);
  bias_gelu(kept.intermediate, intermediate_bias_, activated);
  observe(LayerMatrix::kOutput, activated);
  output_.forward(activated, micro.adapters, t0, kept.output_sum);
  residual_layer_norm(kept.output_sum, output_bias_, normed, output_norm_,
                      dropout.hidden(site(DropoutSite::kOutput), t0), out, kept.output_moments);
}

void EncoderLayer::backward(const MicroBatch& micro, const DropoutPlan& dropout, const LayerActivations& kept,
                            LayerScratch& scratch, bool lowest, Tensor& gradient) {
  const int64_t tokens = micro.layout.tokens, d = shape_.hidden_size, f = shape_.intermediate_size;
  const at::Device device = gradient.device();
  const uint32_t t0 = micro.first_token;
  const Part lowest_part = lowest_trained();
  const auto below = [&](Part part) { return !lowest || lowest_part < part; };
  WeightGradient& weight_gradient = scratch.weight_gradient;

  // y = LayerNorm(h + dropout(W2 gelu(u) + b2)), u = W1 h + b1
  add_norm_gradients(gradient, kept.output_sum, kept.output_moments, output_norm_, gradients_.output_norm);
  if (!below(Part::kOutputNorm)) return;
  Tensor sum = scratch.gradient_sum.take(tokens, d, device);
  Tensor masked = scratch.gradient_masked.take(tokens, d, device);
  const Dropout output_dropout = dropout.hidden(site(DropoutSite::kOutput), t0);
  layer_norm_backward(gradient, kept.output_sum, kept.output_moments, output_norm_, output_dropout, sum,
                      masked);
  const Tensor& into_output = output_dropout.active() ? masked : sum;
  Tensor du = scratch.gradient_intermediate.take(tokens, f, device);
  const Tensor output_projected = projected(output_, into_output);
  if (below(Part::kOutput)) output_.backward_input(into_output, output_projected, t0, false, du);
  const bool reads_activated = output_.adapted() || gradients_.output.weight.defined();
  Tensor activated = reads_activated ? scratch.gelu.take(tokens, f, device) : Tensor();
  if (below(Part::kOutput) || reads_activated) gelu_backward(du, kept.intermediate, activated);
  if (output_.adapted()) output_.backward_parameters(activated, into_output, output_projected, t0);
  weight_gradient.add(activated, into_output, gradients_.output);
  if (!below(Part::kOutput)) return;

  const Tensor intermediate_projected = projected(intermediate_, du);
  if (intermediate_.adapted() || gradients_.intermediate.any()) {
    Tensor normed = scratch.attention_normed.take(tokens, d, device);
    layer_norm_apply(kept.attention_sum, kept.attention_moments, attention_norm_, normed);
    if (intermediate_.adapted()) intermediate_.backward_parameters(normed, du, intermediate_projected, t0);
    weight_gradient.add(normed, du, gradients_.intermediate);
  }
  if (!below(Part::kIntermediate)) return;
  intermediate_.backward_input(du, intermediate_projected, t0, true, sum);

  // h = LayerNorm(x + dropout(Wo context + bo))
  add_norm_gradients(sum, kept.attention_sum, kept.attention_moments, attention_norm_,
                     gradients_.attention_norm);
  if (!below(Part::kAttentionNorm)) return;
  const Dropout attention_dropout = dropout.hidden(site(DropoutSite::kAttentionOutput), t0);
  layer_norm_backward(sum, kept.attention_sum, kept.attention_moments, attention_norm_, attention_dropout,
                      gradient, masked);
  const Tensor& into_attention = attention_dropout.active() ? masked : gradient;
  const Tensor attention_projected = projected(attention_output_, into_attention);
  if (attention_output_.adapted())
    attention_output_.backward_parameters(kept.context, into_attention, attention_projected, t0);
  weight_gradient.add(kept.context, into_attention, gradients_.attention_output);
  if (!below(Part::kAttentionOutput)) return;
  Tensor dcontext = scratch.gradient_context.take(tokens, d, device);
  attention_output_.backward_input(into_attention, attention_projected, t0, false, dcontext);

  Tensor dqkv = scratch.gradient_qkv.take(tokens, 3 * d, device);
  const Dropout probability_dropout = dropout.attention(site(DropoutSite::kAttention), t0);
  if (in_16_bits(probability_dropout, device)) {
    cuda::flash_attention_backward(dcontext, kept.qkv, micro.layout, shape_.num_heads, base_.products, dqkv);
  } else {
    attention_backward(dcontext, kept.qkv, kept.lse, micro.layout, shape_.num_heads, probability_dropout,
                       dqkv);
  }
  const Tensor qkv_projected = projected(qkv_, dqkv);
  if (qkv_.adapted()) qkv_.backward_parameters(kept.input, dqkv, qkv_projected, t0);
  weight_gradient.add(kept.input, dqkv, gradients_.qkv);
  if (!lowest) qkv_.backward_input(dqkv, qkv_projected, t0, true, gradient);
}

}  // namespace peft
