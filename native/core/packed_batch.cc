#include "core/packed_batch.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>

#include "error.h"

namespace peft {

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

TokenBatch gather_texts(const TokenBatch& batch, const std::vector<int64_t>& order) {
  TokenBatch gathered;
  gathered.ids.reserve(batch.ids.size());
  gathered.offsets.push_back(0);
  for (const int64_t text : order) {
    gathered.ids.insert(gathered.ids.end(), batch.ids.begin() + batch.offsets[text],
                        batch.ids.begin() + batch.offsets[text + 1]);
    gathered.offsets.push_back(static_cast<int32_t>(gathered.ids.size()));
  }
  return gathered;
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

MicroBatch make_micro_batch(const TokenBatch& batch, int64_t first_text, int64_t texts, at::Device device,
                            const std::vector<int32_t>& adapter_of_text) {
  const int32_t begin = batch.offsets[first_text];
  const int64_t tokens = batch.offsets[first_text + texts] - begin;
  // All in one piece, so that a GPU is sent one; from pinned memory, so that nobody waits for it.
  const Tensor host = at::empty({3 * tokens + texts + 1},
                                at::TensorOptions().dtype(at::kInt).pinned_memory(device.is_cuda()));
  int32_t* const ids = static_cast<int32_t*>(host.mutable_data_ptr());
  int32_t *const positions = ids + tokens, *const text_of = positions + tokens,
                 *const offsets = text_of + tokens;
  std::copy_n(batch.ids.data() + begin, tokens, ids);
  for (int64_t i = 0; i <= texts; i++) offsets[i] = batch.offsets[first_text + i] - begin;
  for (int64_t i = 0; i < texts; i++) {
    for (int32_t t = offsets[i]; t < offsets[i + 1]; t++) {
      positions[t] = t - offsets[i];
      text_of[t] = static_cast<int32_t>(i);
    }
  }
  const Tensor there = host.to(device, at::kInt, true);
  MicroBatch micro;
  micro.ids = there.narrow(0, 0, tokens);
  micro.layout = {.offsets = host.narrow(0, 3 * tokens, texts + 1),
                  .positions = there.narrow(0, tokens, tokens),
                  .sequences = texts,
                  .tokens = tokens,
                  .texts = there.narrow(0, 2 * tokens, tokens),
                  .device_offsets = there.narrow(0, 3 * tokens, texts + 1)};
  micro.first_token = static_cast<uint32_t>(begin);
  micro.first_text = first_text;
  micro.texts = texts;
  if (adapter_of_text.empty()) {
    micro.adapters = {{0, tokens, 0}};
    return micro;
  }
  for (int64_t i = 0; i < texts; i++) {
    const int32_t adapter = adapter_of_text[static_cast<size_t>(first_text + i)];
    AdapterRows& parts = micro.adapters;
    if (!parts.empty() && parts.back().adapter == adapter) {
      parts.back().end = offsets[i + 1];
    } else {
      parts.push_back({offsets[i], offsets[i + 1], adapter});
    }
  }
  return micro;
}

}  // namespace peft
