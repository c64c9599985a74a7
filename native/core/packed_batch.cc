#include "core/packed_batch.h"

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

int64_t upload_size(const TokenBatch& batch, const TextRuns& runs) {
  return 3 * static_cast<int64_t>(batch.ids.size()) + batch.texts() + static_cast<int64_t>(runs.size());
}

MicroBatch make_micro_batch(const TokenBatch& batch, const TextRun& run, Upload& upload,
                            const std::vector<int32_t>& adapter_of_text) {
  const auto [first_text, texts] = run;
  const int32_t begin = batch.offsets[first_text];
  const int64_t tokens = batch.offsets[first_text + texts] - begin;
  const auto ids = upload.ints(tokens), positions = upload.ints(tokens), text_of = upload.ints(tokens),
             offsets = upload.ints(texts + 1);
  std::copy_n(batch.ids.data() + begin, tokens, ids.data);
  for (int64_t i = 0; i <= texts; i++) offsets.data[i] = batch.offsets[first_text + i] - begin;
  for (int64_t i = 0; i < texts; i++) {
    for (int32_t t = offsets.data[i]; t < offsets.data[i + 1]; t++) {
      positions.data[t] = t - offsets.data[i];
      text_of.data[t] = static_cast<int32_t>(i);
    }
  }
  MicroBatch micro;
  micro.ids = ids.there;
  micro.layout = {.offsets = offsets.here,
                  .positions = positions.there,
                  .sequences = texts,
                  .tokens = tokens,
                  .texts = text_of.there,
                  .device_offsets = offsets.there};
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
      parts.back().end = offsets.data[i + 1];
    } else {
      parts.push_back({offsets.data[i], offsets.data[i + 1], adapter});
    }
  }
  return micro;
}

MicroBatch make_micro_batch(const TokenBatch& batch, int64_t first_text, int64_t texts, at::Device device,
                            const std::vector<int32_t>& adapter_of_text) {
  const int64_t tokens = batch.offsets[first_text + texts] - batch.offsets[first_text];
  Upload upload(3 * tokens + texts + 1, device);
  MicroBatch micro = make_micro_batch(batch, {first_text, texts}, upload, adapter_of_text);
  upload.send();
  return micro;
}

}  // namespace peft
