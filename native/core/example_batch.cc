#include "core/example_batch.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>

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

at::Tensor with_fixed(const ExampleBatch& batch, int64_t first_example, const at::Tensor& encoded) {
  const FixedTexts& fixed = batch.fixed;
  if (fixed.count == 0) return encoded;
  const int64_t each = batch.encoded_per_example(), examples = encoded.size(0) / each, d = encoded.size(1);
  const float* vectors = fixed.vectors.data() + first_example * fixed.count * d;
  const at::Tensor given =
      at::from_blob(const_cast<float*>(vectors), {examples, fixed.count, d}, at::kFloat).to(encoded.device());
  const at::Tensor rows = encoded.view({examples, each, d});
  return at::cat({rows.narrow(1, 0, fixed.first), given, rows.narrow(1, fixed.first, each - fixed.first)}, 1)
      .view({-1, d});
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
