#include "core/batch_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace peft {

BatchLoss BatchGradient::operator()(const ExampleBatch& batch, const PassOptions& options, double scale) {
  const ModelShape& shape = encoder_.shape();
  check_examples(batch, shape);
  const Objective objective(options.loss, shape.hidden_size);
  objective.check(batch.texts_per_example, batch.examples(), static_cast<int64_t>(batch.labels.size()));
  parameters_.gradient().zero_();
  use({static_cast<float>(shape.hidden_dropout), static_cast<float>(shape.attention_dropout),
       static_cast<float>(lora_ == nullptr ? 0 : lora_->weights().dropout()), options.seed, options.step});
  const DeviceExamples examples(batch, options.micro_batch_tokens, encoder_.device());
  BatchLoss sum = objective.separable() ? accumulate_apart(batch, examples, objective, scale)
                                        : accumulate_together(batch, examples, objective, scale);
  if (batch.kept.weight != 0) sum.value.add_(accumulate_kept(examples, batch.kept.weight, scale));
  if (lora_ != nullptr) lora_->weights().own().clear_still_gradients();
  return sum;
}

void BatchGradient::use(const DropoutPlan& dropout) {
  std::vector<AdapterLayers*> layers;
  if (lora_ != nullptr) layers.push_back(&lora_->layers());
  encoder_.use(layers, LoraUse::kTraining, dropout);
}

BatchLoss BatchGradient::accumulate_apart(const ExampleBatch& batch, const DeviceExamples& examples,
                                          const Objective& objective, double scale) {
  const int64_t count = batch.examples(), encoded_each = batch.encoded_per_example();
  const int64_t labels_each = examples.labels.numel() / count;
  BatchLoss sum{no_loss(), {}};
  for (const MicroBatch& micro : examples.runs) {
    const int64_t first = micro.first_text / encoded_each, here = micro.texts / encoded_each;
    const Tensor labels = examples.labels.narrow(0, first * labels_each, here * labels_each);
    Tensor vectors = encoder_.forward(micro, true);
    if (examples.fixed.defined())
      vectors = with_fixed(vectors, examples.fixed.narrow(0, first, here), batch.fixed.first);
    const LossValue loss = objective(vectors, batch.texts_per_example, labels, count);
    encoder_.backward(micro, without_fixed(batch, loss.gradient).mul(scale));
    sum.value.add_(loss.value);
    sum.vectors.push_back(vectors);
  }
  return sum;
}

BatchLoss BatchGradient::accumulate_together(const ExampleBatch& batch, const DeviceExamples& examples,
                                             const Objective& objective, double scale) {
  const auto& runs = examples.runs;
  Tensor pooled = at::empty({batch.tokens.texts(), encoder_.shape().hidden_size},
                            at::TensorOptions().dtype(at::kFloat).device(encoder_.device()));
  // What the last run keeps is still there when backward begins, so that run goes forward once only, and so
  // does a batch that is a single run.
  for (const MicroBatch& micro : runs) {
    const bool last = &micro == &runs.back();
    pooled.narrow(0, micro.first_text, micro.texts).copy_(encoder_.forward(micro, last));
  }
  if (examples.fixed.defined()) pooled = with_fixed(pooled, examples.fixed, batch.fixed.first);
  const LossValue loss = objective(pooled, batch.texts_per_example, examples.labels, batch.examples());
  const Tensor gradient = without_fixed(batch, loss.gradient);
  for (auto micro = runs.rbegin(); micro != runs.rend(); ++micro) {
    if (micro != runs.rbegin()) encoder_.forward(*micro, true);
    encoder_.backward(*micro, gradient.narrow(0, micro->first_text, micro->texts).mul(scale));
  }
  return {loss.value, {pooled}};
}

Tensor BatchGradient::accumulate_kept(const DeviceExamples& examples, double weight_of_mean, double scale) {
  const int64_t d = encoder_.shape().hidden_size;
  const Objective distance({.kind = LossKind::kMse}, d);
  // 1 - cos is half the squared distance of unit vectors, of which that loss is the mean over d entries.
  const double weight = weight_of_mean * static_cast<double>(d) / 2;
  use({});
  Tensor sum = no_loss();
  for (const MicroBatch& micro : examples.kept_runs) {
    const Tensor vectors = examples.kept.narrow(0, micro.first_text, micro.texts);
    LossValue loss = distance(encoder_.forward(micro, true), 1, vectors, examples.kept.size(0));
    encoder_.backward(micro, loss.gradient.mul_(weight * scale));
    sum.add_(loss.value, weight);
  }
  return sum;
}

Tensor BatchGradient::no_loss() const {
  return at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(encoder_.device()));
}

}  // namespace peft
