#include "core/text_encoding.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/objective.h"
#include "error.h"

namespace peft {
namespace {

struct Encoding {
  Encoder& encoder;
  bool normalize;
  int64_t micro_batch_tokens;
};

/// Encodes the batch as it stands; text i's vector becomes row row_of_text[i].
void encode_in_order(const Encoding& how, const TokenBatch& batch, const std::vector<int64_t>& row_of_text,
                     const std::vector<int32_t>& adapter_of_text, std::vector<float>& rows) {
  Encoder& encoder = how.encoder;
  const int64_t d = encoder.shape().hidden_size;
  // A GPU is asked for everything before its first vector is waited for.
  const Tensor all =
      at::empty({batch.texts(), d}, at::TensorOptions().dtype(at::kFloat).device(encoder.device()));
  for (const auto& [first, texts] : split_batch(batch, 1, how.micro_batch_tokens)) {
    const MicroBatch micro = make_micro_batch(batch, first, texts, encoder.device(), adapter_of_text);
    const Tensor pooled = encoder.forward(micro, false);
    all.narrow(0, first, texts).copy_(how.normalize ? normalize_rows(pooled) : pooled);
  }
  const Tensor here = all.to(at::kCPU);
  if (!here.isfinite().all().item<bool>()) {
    const int64_t text = here.isfinite().all(1).logical_not().nonzero()[0][0].item<int64_t>();
    throw EngineError(
        "NOT_FINITE",
        "The vector of text " + std::to_string(row_of_text[static_cast<size_t>(text)]) + " is not finite",
        encoder.adapted()
            ? "The adapter or the model holds weights too large to run; train it again at a lower rate."
            : "The model holds weights too large to run: copy it from its origin again.");
  }
  for (int64_t i = 0; i < batch.texts(); i++) {
    std::memcpy(rows.data() + row_of_text[static_cast<size_t>(i)] * d, here.const_data_ptr<float>() + i * d,
                static_cast<size_t>(d) * sizeof(float));
  }
}

void use(Encoder& encoder, const std::vector<LoadedAdapter*>& adapters) {
  std::vector<AdapterLayers*> layers;
  for (LoadedAdapter* lora : adapters) layers.push_back(&lora->layers());
  encoder.use(layers, LoraUse::kForward, {});
}

/// These texts of a batch, through adapters that share the base model's weights.
void encode_mixed(const Encoding& how, const TokenBatch& batch, std::vector<int64_t> texts,
                  const TextAdapters& used, std::vector<float>& rows) {
  if (texts.empty()) return;
  // Texts of one adapter lie together, so that its factors are read once for many rows.
  std::ranges::stable_sort(texts, {}, [&](int64_t text) { return used.of_text[text]; });
  std::vector<LoadedAdapter*> adapters;
  std::vector<int32_t> adapter_of_text;
  int32_t last = -1;
  for (const int64_t text : texts) {
    const int32_t adapter = used.of_text[text];
    if (adapter != last) adapters.push_back(used.adapters[adapter]);
    last = adapter;
    adapter_of_text.push_back(static_cast<int32_t>(adapters.size()) - 1);
  }
  use(how.encoder, adapters);
  encode_in_order(how, gather_texts(batch, texts), texts, adapter_of_text, rows);
}

}  // namespace

std::vector<float> encode_texts(Encoder& encoder, const TokenBatch& batch, const TextAdapters& used,
                                bool normalize, int64_t micro_batch_tokens) {
  const Encoding how{encoder, normalize, micro_batch_tokens};
  std::vector<float> rows(static_cast<size_t>(batch.texts() * encoder.shape().hidden_size));
  std::vector<int64_t> all(static_cast<size_t>(batch.texts()));
  std::iota(all.begin(), all.end(), 0);
  if (used.of_text.empty()) {
    use(encoder, used.adapters);
    encode_in_order(how, batch, all, {}, rows);
    return rows;
  }
  // Where the base itself differs from text to text, texts take turns: those of each adapter that replaces
  // some of it, and all others.
  std::vector<std::vector<int64_t>> apart(used.adapters.size());
  std::vector<int64_t> together;
  for (const int64_t text : all) {
    const int32_t adapter = used.of_text[text];
    const bool replaces = adapter >= 0 && used.adapters[adapter]->layers().replaces_base();
    (replaces ? apart[adapter] : together).push_back(text);
  }
  for (size_t adapter = 0; adapter < apart.size(); adapter++) {
    const std::vector<int64_t>& texts = apart[adapter];
    if (texts.empty()) continue;
    use(encoder, {used.adapters[adapter]});
    encode_in_order(how, gather_texts(batch, texts), texts, {}, rows);
  }
  encode_mixed(how, batch, std::move(together), used, rows);
  return rows;
}

}  // namespace peft
