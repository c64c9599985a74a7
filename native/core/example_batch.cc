#include "core/example_batch.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <string>

#include "error.h"

namespace peft {
namespace {

void check_vectors(const std::vector<float>& vectors, int64_t texts, int64_t dimension, const char* what) {
  if (static_cast<int64_t>(vectors.size()) == texts * dimension) return;
  throw EngineError("USAGE", "Bad batch: expected " + std::to_string(texts * dimension) + " numbers for " +
                                 std::to_string(texts) + " " + what + " texts, got " +
                                 std::to_string(vectors.size()));
}

}  // namespace

void check_examples(const ExampleBatch& batch, const ModelShape& shape) {
  const int64_t each = batch.texts_per_example, texts = batch.tokens.texts();
  const FixedTexts& fixed = batch.fixed;
  check_batch(batch.tokens, shape);
  if (fixed.first < 0 || fixed.count < 0 || fixed.first + fixed.count > each ||
      batch.encoded_per_example() < 1) {
    throw EngineError("USAGE", "Bad batch: " + std::to_string(fixed.count) + " texts from place " +
                                   std::to_string(fixed.first) + " on cannot be fixed in examples of " +
                                   std::to_string(each) + " texts");
  }
  if (texts == 0 || texts % batch.encoded_per_example() != 0) {
    throw EngineError("USAGE", "Bad batch: " + std::to_string(texts) + " texts are no examples of " +
                                   std::to_string(batch.encoded_per_example()) + " texts");
  }
  check_vectors(fixed.vectors, batch.examples() * fixed.count, shape.hidden_size, "fixed");
  if (batch.kept.weight == 0) return;
  if (batch.kept.tokens.texts() == 0) throw EngineError("USAGE", "Bad batch: no texts are kept");
  check_batch(batch.kept.tokens, shape);
  check_vectors(batch.kept.vectors, batch.kept.tokens.texts(), shape.hidden_size, "kept");
}

DeviceExamples::DeviceExamples(const ExampleBatch& batch, int64_t micro_batch_tokens, at::Device device) {
  const TextRuns text_runs = split_batch(batch.tokens, batch.encoded_per_example(), micro_batch_tokens);
  const bool keeps = batch.kept.weight != 0;
  const TextRuns kept_text_runs = keeps ? split_batch(batch.kept.tokens, 1, micro_batch_tokens) : TextRuns();
  const std::vector<float> none, &kept_vectors = keeps ? batch.kept.vectors : none;
  int64_t numbers = upload_size(batch.tokens, text_runs);
  if (keeps) numbers += upload_size(batch.kept.tokens, kept_text_runs);
  for (const auto* each : {&batch.labels, &batch.fixed.vectors, &kept_vectors})
    numbers += static_cast<int64_t>(each->size());

  Upload upload(numbers, device);
  for (const TextRun& run : text_runs) runs.push_back(make_micro_batch(batch.tokens, run, upload));
  for (const TextRun& run : kept_text_runs)
    kept_runs.push_back(make_micro_batch(batch.kept.tokens, run, upload));
  const auto floats = [&](const std::vector<float>& values) {
    const auto place = upload.floats(static_cast<int64_t>(values.size()));
    std::copy(values.begin(), values.end(), place.data);
    return place.there;
  };
  labels = floats(batch.labels);
  if (batch.fixed.count > 0)
    fixed = floats(batch.fixed.vectors).view({batch.examples(), batch.fixed.count, -1});
  if (keeps) kept = floats(kept_vectors).view({batch.kept.tokens.texts(), -1});
  upload.send();
}

at::Tensor with_fixed(const at::Tensor& encoded, const at::Tensor& fixed, int64_t first) {
  const int64_t examples = fixed.size(0), each = encoded.size(0) / examples, d = encoded.size(1);
  const at::Tensor rows = encoded.view({examples, each, d});
  return at::cat({rows.narrow(1, 0, first), fixed, rows.narrow(1, first, each - first)}, 1).view({-1, d});
}

at::Tensor without_fixed(const ExampleBatch& batch, const at::Tensor& rows) {
  const FixedTexts& fixed = batch.fixed;
  if (fixed.count == 0) return rows;
  const int64_t d = rows.size(1), rest = fixed.first + fixed.count;
  const at::Tensor all = rows.view({-1, batch.texts_per_example, d});
  return at::cat({all.narrow(1, 0, fixed.first), all.narrow(1, rest, batch.texts_per_example - rest)}, 1)
      .view({-1, d});
}

}  // namespace peft
