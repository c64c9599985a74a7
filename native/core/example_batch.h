#pragma once

#include <ATen/core/Tensor.h>

#include "core/packed_batch.h"

namespace peft {

/// Texts that come as vectors, at the same places of every example: the encoder does not see them, and they
/// get no gradient.
struct FixedTexts {
  int64_t first = 0;
  int64_t count = 0;
  std::vector<float> vectors = {};  // [examples, count, d]
};

/// Texts that training is to leave where they are: weight * (1 - cosine to their vector), in the mean, is
/// added to the loss.
struct KeptTexts {
  TokenBatch tokens;
  std::vector<float> vectors;  // [texts, d], of length 1
  double weight = 0;
};

/// Examples of k texts: one, a pair, or an anchor, its positive and its negatives. Those that are not fixed
/// lie side by side in `tokens`, example by example.
struct ExampleBatch {
  TokenBatch tokens;
  std::vector<float> labels;  // as many for every example
  int64_t texts_per_example = 2;
  FixedTexts fixed = {};
  KeptTexts kept = {};

  int64_t encoded_per_example() const { return texts_per_example - fixed.count; }
  int64_t examples() const { return tokens.texts() / encoded_per_example(); }
};

/// Throws USAGE for numbers that do not fit each other, and what check_batch throws. Labels are the loss's
/// business.
void check_examples(const ExampleBatch& batch, const ModelShape& shape);

/// A batch on the device, in runs of whole examples that go through the encoder at once; sent in one copy.
struct DeviceExamples {
  DeviceExamples(const ExampleBatch& batch, int64_t micro_batch_tokens, at::Device device);

  std::vector<MicroBatch> runs;
  Tensor labels;  // flat
  Tensor fixed;   // [examples, count, d]
  std::vector<MicroBatch> kept_runs;
  Tensor kept;  // [texts, d]
};

/// All texts' vectors [texts, d] of a run of examples, from those of the encoded ones and of those that are
/// fixed [examples, count, d], which lie from place `first` on in every example.
at::Tensor with_fixed(const at::Tensor& encoded, const at::Tensor& fixed, int64_t first);
/// The rows of the encoded texts among those of all.
at::Tensor without_fixed(const ExampleBatch& batch, const at::Tensor& rows);

}  // namespace peft
