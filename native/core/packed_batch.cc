#include "core/packed_batch.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <string>

#include "error.h"

namespace peft {
namespace {

Tensor int_tensor(const int32_t* values, int64_t count) {
  Tensor t = at::empty({count}, at::TensorOptions().dtype(at::kInt));
  if (count > 0) std::memcpy(t.mutable_data_ptr(), values, static_cast<size_t>(count) * sizeof(int32_t));
  return t;
}

}  // namespace

void check_batch(const TokenBatch& batch, const ModelShape& shape) {
  const auto fail = [](const std::string& what) { throw EngineError("USAGE", "Bad token batch: " + what); };
  const auto& offsets = batch.offsets;
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != static_cast<int64_t>(batch.ids.size())) {
    fail("cuSeqlens must start with 0 and end with the number of ids (" + std::to_string(batch.ids.size()) +
         ")");
  }
  for (size_t i = 1; i < offsets.size(); i++) {
    const int64_t length = static_cast<int64_t>(offsets[i]) - offsets[i - 1];
    if (length < 1 || length > shape.max_positions) {
      fail("text " + std::to_string(i - 1) + " has " + std::to_string(length) + " tokens; expected 1 to " +
           std::to_string(shape.max_positions));
    }
  }
  for (size_t i = 0; i < batch.ids.size(); i++) {
    if (batch.ids[i] < 0 || batch.ids[i] >= shape.vocab_size) {
      fail("token id " + std::to_string(batch.ids[i]) + " at position " + std::to_string(i) +
           "; the vocabulary has " + std::to_string(shape.vocab_size));
    }
  }
}

TextRuns split_batch(const TokenBatch& batch, int64_t texts_per_group, int64_t max_tokens) {
  TextRuns runs;
  int64_t first = 0;
  for (int64_t text = 0; text < batch.texts(); text += texts_per_group) {
    const int64_t end = text + texts_per_group;
    if (text > first && batch.offsets[end] - batch.offsets[first] > max_tokens) {
      runs.emplace_back(first, text - first);
      first = text;
    }
  }
  if (batch.texts() > first) runs.emplace_back(first, batch.texts() - first);
  return runs;
}

MicroBatch make_micro_batch(const TokenBatch& batch, int64_t first_text, int64_t texts, at::Device device) {
  const int32_t begin = batch.offsets[first_text];
  const int64_t tokens = batch.offsets[first_text + texts] - begin;
  std::vector<int32_t> offsets(texts + 1), positions(tokens);
  for (int64_t i = 0; i <= texts; i++) offsets[i] = batch.offsets[first_text + i] - begin;
  for (int64_t i = 0; i < texts; i++) {
    for (int32_t t = offsets[i]; t < offsets[i + 1]; t++) positions[t] = t - offsets[i];
  }
  MicroBatch micro;
  micro.ids = int_tensor(batch.ids.data() + begin, tokens).to(device);
  micro.layout = {int_tensor(offsets.data(), texts + 1), int_tensor(positions.data(), tokens).to(device),
                  texts, tokens};
  micro.first_token = static_cast<uint32_t>(begin);
  micro.first_text = first_text;
  micro.texts = texts;
  return micro;
}

}  // namespace peft
